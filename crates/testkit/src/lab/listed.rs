//! Reads the entries of a store's tree, in the layout of `src/store/embedded/layout/keys.rs`.

/// The ids in all entries of a kind: `e`, expiring; `n`, claimed.
pub fn listed(tree: &sled::Tree, kind: &str) -> Vec<[u8; 32]> {
    let lists = tree.scan_prefix(kind).values().map(|list| list.expect("it can be read"));
    let ids = |list: sled::IVec| {
        list[..list.len() - 8].chunks(40).map(|item| item[..32].try_into().expect("an id")).collect::<Vec<_>>()
    };
    lists.flat_map(ids).collect()
}

/// Asserts that the totals say the sum of the numbers of all entries that they count, and leave out none but those that
/// are about to be removed: at the next opening nothing has to be made anew.
pub fn assert_summed(tree: &sled::Tree) {
    let number = |key: sled::IVec| u64::from_be_bytes(*key.last_chunk().expect("it ends with its number"));
    let totals = tree.get("mtotals").expect("it can be read").expect("it is always there");
    let totals: Vec<u64> = totals.as_chunks().0.iter().map(|number| u64::from_be_bytes(*number)).collect();
    let [_count, _seen, sum, _bytes, _step, below, leaving @ ..] = &totals[..] else { panic!("{totals:?}") };
    let keys = ["e", "n"].into_iter().flat_map(|kind| tree.scan_prefix(kind).keys());
    let numbers: Vec<u64> = keys.map(|key| number(key.expect("it can be read"))).collect();
    assert!(numbers.iter().all(|number| number < below), "none is of a step that was interrupted");
    let counted = numbers.iter().filter(|number| !leaving.contains(number));
    assert_eq!(counted.fold(0, |sum: u64, number| sum.wrapping_add(*number)), *sum);
}
