//! Where chance comes from: one stream of numbers per process, made of the seed.
//!
//! What is random in a process (the keys of std's hash maps, tokio's order of branches, Raft's election timeouts) comes
//! from `getrandom` of the C library: the linker takes the function here instead. It is the stream for the simulation's
//! one thread, and the system's for every other.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

thread_local! {
    /// The state of this thread's stream; 0 = the system's.
    static STREAM: Cell<u64> = const { Cell::new(0) };
}

/// Answers as getrandom(2) does.
///
/// # Safety
/// `buffer` must be valid for writes of `length` bytes.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    let state = STREAM.get();
    if state == 0 {
        // SAFETY: the system call has the same contract as this function.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize };
    }
    let mut rng = Rng(state);
    for at in 0..length {
        // SAFETY: `at` is below `length`, for which the caller vouches.
        unsafe { buffer.add(at).write(rng.next() as u8) };
    }
    STREAM.set(rng.0);
    length.cast_signed()
}

/// Runs on a thread that has no other chance than the seed's.
pub fn seeded(seed: u64, run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(32 << 20);
    let running = thread.spawn(move || {
        STREAM.set(Rng::of(seed, "getrandom").0 | 1);
        run();
    });
    if let Err(panic) = running.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for choices, and the same everywhere.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    /// A stream for one purpose.
    pub fn of(seed: u64, purpose: &str) -> Self {
        let start = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = purpose
            .bytes()
            .fold(start, |state, byte| Self(state ^ u64::from(byte)).next());
        Self(mixed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number of the range, its end included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }
}

/// The same for whoever may only look at it.
pub struct SharedRng(AtomicU64);

impl SharedRng {
    pub fn new(rng: &Rng) -> Self {
        Self(AtomicU64::new(rng.0))
    }

    pub fn with<T>(&self, choose: impl FnOnce(&mut Rng) -> T) -> T {
        let mut rng = Rng(self.0.load(Ordering::Relaxed));
        let chosen = choose(&mut rng);
        self.0.store(rng.0, Ordering::Relaxed);
        chosen
    }
}

#[test]
fn all_that_is_random_comes_from_the_seed() {
    use std::hash::{BuildHasher, RandomState};
    let draw = |seed: u64| {
        let (tell, told) = std::sync::mpsc::channel();
        seeded(seed, move || {
            let mut bytes = [0; 24];
            getrandom::fill(&mut bytes).unwrap();
            tell.send((RandomState::new().hash_one(7), bytes)).unwrap();
        });
        told.recv().unwrap()
    };
    assert_eq!(draw(1), draw(1));
    assert!(draw(1).0 != draw(2).0 && draw(1).1 != draw(2).1);
}
