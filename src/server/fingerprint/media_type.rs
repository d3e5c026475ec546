//! The meaning of a `Content-Type`, however it is written.
//!
//! Rules:
//! 1. Parameters are compared without regard to case, order and quoting (RFC 9110, section 8.3.1). The RFC leaves it to
//!    each parameter whether the case of its value matters. It does for `boundary`; no client is known for which it
//!    matters elsewhere.
//! 2. `charset=utf-8` on JSON and on forms counts as absent: gateways add it.
//! 3. A value that cannot be parsed, or that names a parameter twice, is compared as it was sent.

use std::borrow::Cow;

use http::HeaderValue;

/// The parameter whose value is compared with its case.
const BOUNDARY: &str = "boundary";

/// The type of a form in parts.
const FORM_DATA: &str = "multipart/form-data";

/// A media type that was parsed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MediaType<'a> {
    /// Type and subtype, in lower case.
    essence: Cow<'a, str>,
    // The parameters, sorted by name. Names are in lower case.
    parameters: Vec<(String, String)>,
}

impl<'a> MediaType<'a> {
    /// Parses `value`, and returns `None` if that is not possible.
    pub(crate) fn of(value: &'a HeaderValue) -> Option<Self> {
        let plain = Some(value.as_bytes()).filter(|bytes| is_plain(bytes));
        if let Some(essence) = plain.and_then(|bytes| std::str::from_utf8(bytes).ok()) {
            return Some(Self { essence: essence.into(), parameters: Vec::new() });
        }
        // Empty parameters at the end do not count (RFC 9110, section 5.6.6).
        let text = value.to_str().ok()?.trim_end_matches([';', ' ', '\t']);
        let parsed = mediatype::MediaType::parse(text).ok()?;
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let mut parameters: Vec<_> = parsed.params.iter().map(|(name, value)| parameter(*name, *value)).collect();
        parameters.sort();
        // A name that comes twice (rule 3). Equal names are neighbours.
        if parameters.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        let mut this = Self { essence: essence.into(), parameters };
        // Rule 2.
        if this.is_json() || this.is_form() {
            this.parameters.retain(|(name, value)| (name.as_str(), value.as_str()) != ("charset", "utf-8"));
        }
        Some(this)
    }

    pub(crate) fn is_json(&self) -> bool {
        matches!(&*self.essence, "application/json" | "text/json") || self.essence.ends_with("+json")
    }

    pub(crate) fn is_url_encoded(&self) -> bool {
        self.essence == "application/x-www-form-urlencoded"
    }

    fn is_form(&self) -> bool {
        self.is_url_encoded() || self.essence == FORM_DATA
    }

    /// Returns the boundary between the parts of a form.
    pub(crate) fn form_boundary(&self) -> Option<&str> {
        let is_of_form = |(name, _): &&(String, String)| self.essence == FORM_DATA && name == BOUNDARY;
        self.parameters.iter().find(is_of_form).map(|(_, value)| value.as_str())
    }

    /// Removes the boundary: the parts of the form are compared without it.
    pub(crate) fn remove_boundary(&mut self) {
        self.parameters.retain(|(name, _)| name != BOUNDARY);
    }

    /// Returns the media type in its canonical form.
    pub(crate) fn canonical(&self) -> Cow<'_, str> {
        if self.parameters.is_empty() {
            return Cow::Borrowed(&self.essence);
        }
        let mut text = self.essence.to_string();
        for (name, value) in &self.parameters {
            // The value is quoted and escaped, so that it can't look like another parameter.
            text.extend([";", name, "=", &format!("{value:?}")]);
        }
        text.into()
    }
}

/// Returns a parameter as rule 1 compares it.
fn parameter(name: mediatype::Name<'_>, value: mediatype::Value<'_>) -> (String, String) {
    let (name, value) = (name.as_str().to_ascii_lowercase(), value.unquoted_str());
    let value = if name == BOUNDARY { value.into_owned() } else { value.to_ascii_lowercase() };
    (name, value)
}

/// The content types that nearly all clients send.
const USUAL: [&[u8]; 2] = [b"application/json", b"application/x-www-form-urlencoded"];

/// Returns whether there are no parameters, and the type is in lower case.
fn is_plain(text: &[u8]) -> bool {
    // The bytes from `-` to `9` are hyphen, dot, slash and the digits.
    USUAL.contains(&text) || text.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'-'..=b'9' | b'+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        let value = HeaderValue::from_str(text).unwrap();
        MediaType::of(&value).map(|media_type| media_type.canonical().into_owned())
    }

    #[test]
    fn what_can_not_be_understood_is_none() {
        let followed = ["text/plain; a=1 b", "text/plain; a=\"1\" b", "text/plain; a=1,", "text/plain, text/html"];
        let others = ["text/plain; a=1; A=2", "text/plain; a=1;; b=2", "text/plain; ; a=1", "; charset=utf-8"];
        for text in followed.into_iter().chain(others) {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    #[test]
    fn plain_texts_are_as_they_were_sent_whether_types_or_not() {
        for text in ["application/json", "text", ""] {
            assert_eq!(canonical(text).as_deref(), Some(text));
        }
    }
}
