//! JSON pointers (RFC 6901), for the rules here and for the places of the layer.

/// Returns the names of members and the indexes on the way, or `None` if the text is no pointer, or leads to the whole
/// body.
#[must_use]
pub fn tokens(text: &str) -> Option<Vec<String>> {
    // Section 3: `~` is followed by `0` or `1`.
    let is_bad = |token: &str| token.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1']));
    let tokens = text.strip_prefix('/').filter(|tokens| !is_bad(tokens))?;
    // Section 4: in this order, so that `~01` is `~1`.
    Some(tokens.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
}

/// Returns the element of an array that a token names (section 4: without leading zeros).
#[must_use]
pub fn index(token: &str) -> Option<usize> {
    token.parse::<usize>().ok().filter(|index| index.to_string() == token)
}
