//! What the process holds of the system's memory beyond what is in use. QBC's own blocks are mimalloc's; those of the database
//! come from the system's allocator, and this file is about them.

use std::time::Duration;

/// How often what is free goes back to the system.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(1);

/// At most this many arenas of the system's allocator. Each thread would have one of its own, which keeps what a memtable or a
/// compaction used once.
#[cfg(target_env = "gnu")]
const ARENAS: i32 = 4;

/// Before any thread is started.
pub(super) fn prepare() {
    small_pages();
    few_arenas();
}

/// No huge pages: what a group reserves and never touches would be resident (3 MiB of 64 groups each, against 1).
/// Where the system does not know the call, nothing changes.
fn small_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

#[allow(unsafe_code)]
fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes numbers, and changes where later blocks are asked for.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Gives back what is free, again and again. Under load up to two thirds of what the allocator has are free: flushed memtables leave pages
/// between blocks of the cache, and it returns by itself only what lies at an arena's end. A bound above which blocks are
/// returned at once would keep as little, and cost batches a third of their rate in page faults.
pub(super) async fn give_back() {
    loop {
        tokio::time::sleep(GIVE_BACK_EVERY).await;
        // Up to ten milliseconds under load, one at rest: nothing for a thread that serves.
        if tokio::task::spawn_blocking(trim).await.is_err() {
            return;
        }
    }
}

#[allow(unsafe_code)]
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only pages without a block in use are returned, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
