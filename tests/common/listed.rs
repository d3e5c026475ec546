//! What the entries of a store's tree list, in the layout of `src/store/sled/keys.rs`.

/// The ids in all entries of a kind: `e`, expiring; `n`, claimed.
pub fn listed(tree: &sled::Tree, kind: &str) -> Vec<[u8; 32]> {
    let lists = tree.scan_prefix(kind).values().map(|list| list.expect("it can be read"));
    let ids = |list: sled::IVec| {
        list[..list.len() - 8].chunks(40).map(|item| item[..32].try_into().expect("an id")).collect::<Vec<_>>()
    };
    lists.flat_map(ids).collect()
}

/// Asserts that the totals say the sum of all entries' numbers: at the next opening nothing has to be made anew.
pub fn assert_summed(tree: &sled::Tree) {
    let number = |key: sled::IVec| u64::from_be_bytes(*key.last_chunk().expect("it ends with its number"));
    let keys = ["e", "n"].into_iter().flat_map(|kind| tree.scan_prefix(kind).keys());
    let sum = keys.fold(0, |sum: u64, key| sum.wrapping_add(number(key.expect("it can be read"))));
    let totals = tree.get("mtotals").expect("it can be read").expect("it is always there");
    assert_eq!(u64::from_be_bytes(*totals.last_chunk().expect("three numbers")), sum);
}
