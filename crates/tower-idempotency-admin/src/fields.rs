//! The fields of a URL's query, or of a form.

use form_urlencoded::Serializer;

/// Fields with their values, in order. A name may come several times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(crate) fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// Returns the fields that have a value.
    pub(crate) fn of<const N: usize>(fields: [(&str, Option<String>); N]) -> Self {
        Self(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
    }

    /// Returns whether there is a field of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// Returns the first value of a field, without blanks around it; `None` if it is not there, or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.exact(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// Returns the first value of a field as it is.
    pub(crate) fn exact(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns all values of a field.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns whether all fields have these names, and each is there once, with a value.
    pub(crate) fn are_of(&self, names: &[&str]) -> bool {
        let is_of = |name: &str| names.contains(&name) && self.all(name).count() == 1 && self.get(name).is_some();
        self.0.iter().all(|(name, _)| is_of(name))
    }
}

/// Returns a link to this page with these fields. It is relative, and holds under any path: with and without a slash at
/// its end, and behind a proxy that changes it.
pub(crate) fn link<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    format!("?{}", Serializer::new(String::new()).extend_pairs(fields).finish())
}
