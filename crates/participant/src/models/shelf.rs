//! What is loaded, within a budget: a stranger's models must not fill the memory of a party that serves or checks them.

use gainsay_commitment::ModelId;
use std::collections::HashMap;
use std::sync::Arc;

/// Something that can be let go while nobody uses it.
pub(super) trait Idle {
    /// Whether nobody uses it.
    fn is_idle(&self) -> bool;
}

/// There is no room beside what is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom {
    /// Bytes that what is in use takes.
    pub(super) in_use: u64,
}

/// Things by model, each with its bytes. What is asked for and does not fit takes the place of what was not used for
/// longest, never of what is in use.
pub(super) struct Shelf<T> {
    limit: u64,
    entries: HashMap<ModelId, Entry<T>>,
    /// Counts uses.
    clock: u64,
}

struct Entry<T> {
    thing: Arc<T>,
    bytes: u64,
    used: u64,
}

impl<T> Entry<T>
where
    T: Idle,
{
    /// Whoever waits for the thing holds it, too.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.thing) == 1 && self.thing.is_idle()
    }
}

impl<T: Idle + Default> Shelf<T> {
    /// An empty one, for so many bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, entries: HashMap::new(), clock: 0 }
    }

    /// Bytes that all may take together.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// The thing of a model that has a place.
    pub(super) fn find(&mut self, id: ModelId) -> Option<Arc<T>> {
        self.clock += 1;
        let entry = self.entries.get_mut(&id)?;
        entry.used = self.clock;
        Some(entry.thing.clone())
    }

    /// The thing of a model, which gets a place of so many bytes if it has none. With `make_room`, what is idle may lose
    /// its place for it, and only as much as is needed.
    pub(super) fn place(&mut self, id: ModelId, bytes: u64, make_room: bool) -> Result<Arc<T>, NoRoom> {
        if let Some(thing) = self.find(id) {
            return Ok(thing);
        }
        let taken =
            |shelf: &Self| shelf.entries.values().map(|entry| entry.bytes).fold(0, u64::saturating_add);
        let in_use = self.entries.values().filter(|entry| !make_room || !entry.is_idle());
        let in_use = in_use.map(|entry| entry.bytes).fold(0, u64::saturating_add);
        if in_use.saturating_add(bytes) > self.limit {
            return Err(NoRoom { in_use });
        }
        while taken(self).saturating_add(bytes) > self.limit {
            let idle = self.entries.iter().filter(|(_, entry)| entry.is_idle());
            let Some(oldest) = idle.min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id) else {
                return Err(NoRoom { in_use });
            };
            tracing::info!(model = %oldest, "a model that is not in use makes room");
            self.entries.remove(&oldest);
        }
        let thing = Arc::new(T::default());
        self.entries.insert(id, Entry { thing: thing.clone(), bytes, used: self.clock });
        Ok(thing)
    }

    /// Takes the place from a thing that came to nothing, unless somebody else waits for it.
    pub(super) fn give_up(&mut self, id: ModelId, thing: Arc<T>) {
        drop(thing);
        if self.entries.get(&id).is_some_and(Entry::is_idle) {
            self.entries.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In use where it is held twice.
    #[derive(Default)]
    struct Thing;

    impl Idle for Thing {
        fn is_idle(&self) -> bool {
            true
        }
    }

    fn id(byte: u8) -> ModelId {
        ModelId::from_bytes([byte; 32])
    }

    fn has(shelf: &Shelf<Thing>, byte: u8) -> bool {
        shelf.entries.contains_key(&id(byte))
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let mut shelf = Shelf::<Thing>::new(100);
        for byte in 0..3 {
            shelf.place(id(byte), 30, true).unwrap();
        }
        shelf.find(id(0));
        shelf.place(id(3), 40, true).unwrap();
        assert!(has(&shelf, 0) && !has(&shelf, 1) && has(&shelf, 2) && has(&shelf, 3));
    }

    #[test]
    fn what_is_in_use_stays_and_what_does_not_fit_beside_it_takes_nothing_down() {
        let mut shelf = Shelf::<Thing>::new(100);
        let used = shelf.place(id(0), 60, true).unwrap();
        shelf.place(id(1), 30, true).unwrap();
        assert_eq!(shelf.place(id(2), 41, true).err(), Some(NoRoom { in_use: 60 }));
        assert!(has(&shelf, 0) && has(&shelf, 1), "a load that is refused takes no other down");
        drop(used);
        shelf.place(id(2), 41, true).unwrap();
        assert!(!has(&shelf, 0) && has(&shelf, 1) && has(&shelf, 2));
    }

    #[test]
    fn free_room_is_all_that_is_taken_where_nothing_may_make_room() {
        let mut shelf = Shelf::<Thing>::new(100);
        shelf.place(id(0), 60, false).unwrap();
        assert_eq!(shelf.place(id(1), 50, false).err(), Some(NoRoom { in_use: 60 }));
        shelf.place(id(2), 40, false).unwrap();
        assert!(has(&shelf, 0) && has(&shelf, 2));
        assert!(shelf.place(id(0), 60, false).is_ok(), "it has its place");
    }

    #[test]
    fn what_came_to_nothing_keeps_its_place_only_for_those_who_wait() {
        let mut shelf = Shelf::<Thing>::new(100);
        let (one, other) = (shelf.place(id(0), 60, true).unwrap(), shelf.find(id(0)).unwrap());
        shelf.give_up(id(0), one);
        assert!(has(&shelf, 0));
        shelf.give_up(id(0), other);
        assert!(!has(&shelf, 0));
    }
}
