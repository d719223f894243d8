//! The shelf against hand-written cases and a random walk.

use proptest::prelude::*;

use super::*;

fn loaded(shelf: &mut Shelf<u8>, key: u8, bytes: u64) -> Stay {
    let stay = shelf.pin(&key);
    shelf.reserve(&key, bytes).unwrap();
    shelf.settle(&key, bytes).unwrap();
    stay
}

#[test]
fn the_least_recently_used_idle_model_goes_first() {
    let mut shelf = Shelf::new(30);
    for key in [1, 2, 3] {
        let stay = loaded(&mut shelf, key, 10);
        shelf.unpin(&key, stay);
    }
    let stay = shelf.pin(&1);
    shelf.unpin(&1, stay);
    shelf.pin(&4);
    assert_eq!(shelf.reserve(&4, 15), Ok(vec![2, 3]));
}

#[test]
fn a_model_in_use_or_being_loaded_is_never_evicted() {
    let mut shelf = Shelf::new(30);
    let used = loaded(&mut shelf, 1, 10);
    // Being loaded, and everyone who waited for it has gone away.
    let loading = shelf.pin(&2);
    shelf.reserve(&2, 10).unwrap();
    shelf.unpin(&2, loading);
    shelf.pin(&3);
    assert_eq!(shelf.reserve(&3, 20), Err(NoRoom::Later));
    assert!(shelf.unpin(&1, used));
    assert_eq!(shelf.reserve(&3, 20), Ok(vec![1]));
    assert_eq!(shelf.reserve(&3, 31), Err(NoRoom::Never));
}

#[test]
fn a_refused_reservation_changes_nothing() {
    let mut shelf = Shelf::new(20);
    loaded(&mut shelf, 1, 10);
    let idle = loaded(&mut shelf, 2, 10);
    shelf.unpin(&2, idle);
    shelf.pin(&3);
    assert_eq!(shelf.reserve(&3, 15), Err(NoRoom::Later));
    assert_eq!(shelf.reserve(&3, 10), Ok(vec![2]));
}

#[test]
fn an_unpin_of_an_earlier_stay_does_not_count() {
    let mut shelf = Shelf::new(10);
    let first = shelf.pin(&1);
    shelf.remove(&1);
    let second = shelf.pin(&1);
    assert!(!shelf.unpin(&1, first));
    assert!(shelf.unpin(&1, second));
}

#[test]
fn a_model_that_turns_out_larger_must_still_fit() {
    let mut shelf = Shelf::new(20);
    let idle = loaded(&mut shelf, 1, 10);
    shelf.unpin(&1, idle);
    shelf.pin(&2);
    assert_eq!(shelf.reserve(&2, 5), Ok(vec![]));
    assert_eq!(shelf.settle(&2, 12), Ok(vec![1]));
    shelf.pin(&3);
    shelf.reserve(&3, 8).unwrap();
    assert_eq!(shelf.settle(&3, 9), Err(NoRoom::Later));
}

proptest! {
    #[test]
    fn never_over_budget_and_never_evicts_what_is_in_use(
        steps in prop::collection::vec((0_u8..5, 0_u8..6, 0_u64..60), 1..200)
    ) {
        let mut shelf = Shelf::new(100);
        let mut pins: Vec<(u8, Stay)> = Vec::new();
        for (what, key, bytes) in steps {
            match what {
                0 | 1 => pins.push((key, shelf.pin(&key))),
                2 => {
                    if let Some(at) = pins.iter().position(|(k, _)| *k == key) {
                        let (key, stay) = pins.swap_remove(at);
                        shelf.unpin(&key, stay);
                    }
                }
                _ if !shelf.places.contains_key(&key) => {}
                _ => {
                    let busy: Vec<u8> = shelf
                        .places
                        .iter()
                        .filter(|(_, p)| p.pins > 0 || !p.loaded)
                        .map(|(k, _)| *k)
                        .collect();
                    let result = if what == 3 {
                        shelf.reserve(&key, bytes)
                    } else {
                        shelf.settle(&key, bytes)
                    };
                    for gone in result.unwrap_or_default() {
                        prop_assert!(!busy.contains(&gone));
                        prop_assert!(!shelf.places.contains_key(&gone));
                    }
                }
            }
            let sum: u64 = shelf.places.values().map(|p| p.bytes).sum();
            prop_assert_eq!(sum, shelf.held);
            prop_assert!(shelf.held <= shelf.budget);
        }
    }
}
