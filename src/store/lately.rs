//! What was used lately, in two generations: when the younger one is full it takes the place of the older one, whose values
//! are found again as they are used.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Arc, PoisonError, RwLock},
};

/// Values that are found by a key and can be found again when they are gone. Bounded: twice `most` of them at most.
#[derive(Debug)]
pub struct Lately<K, V> {
    most: usize,
    /// The younger and the older.
    kept: RwLock<[HashMap<K, Arc<V>>; 2]>,
}

impl<K: Eq + Hash, V> Lately<K, V> {
    /// None yet; a generation takes `most`.
    pub fn new(most: usize) -> Self {
        let kept = RwLock::new([HashMap::new(), HashMap::new()]);
        Self { most, kept }
    }

    /// The value of a key, if it is kept.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find_map(|values| values.get(key)).cloned()
    }

    /// Keeps a value.
    pub fn put(&self, key: K, value: Arc<V>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let [younger, older] = &mut *kept;
        if younger.len() >= self.most {
            *older = std::mem::take(younger);
        }
        younger.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_for_a_generation_and_no_more_than_two_are_kept() {
        let lately = Lately::new(3);
        for key in 0..7 {
            lately.put(key, Arc::new(key * 10));
        }
        // 0 to 2 went with the generation before last, 6 begins the newest.
        let kept = (0..7).filter(|key| lately.get(key).is_some());
        assert_eq!(kept.collect::<Vec<_>>(), [3, 4, 5, 6]);
        lately.put(4, Arc::new(41));
        assert_eq!(lately.get(&4).as_deref(), Some(&41));
    }
}
