//! What a browser without JavaScript knows of a page: its text, its links, and its forms.

/// A form, with the values that it has before anything is entered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) method: String,
    pub(crate) action: String,
    pub(crate) fields: Vec<(String, String)>,
    /// The values of its buttons that have any, and the words on all of them.
    pub(crate) buttons: Vec<(String, String)>,
}

impl Form {
    /// Enters a value.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|(known, _)| known != name);
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn has(&self, name: &str, value: &str) -> bool {
        self.fields.iter().any(|field| *field == (name.to_owned(), value.to_owned()))
    }
}

/// The form of a page that has this field with this value.
pub(crate) fn form(page: &str, name: &str, value: &str) -> Form {
    let forms = forms(page);
    let found = forms.iter().find(|form| form.has(name, value));
    found.unwrap_or_else(|| panic!("no form has {name}={value}: {forms:?}")).clone()
}

/// All forms of a page. Boxes are not ticked.
pub(crate) fn forms(page: &str) -> Vec<Form> {
    let mut forms: Vec<Form> = Vec::new();
    let mut is_open = false;
    for (name, attributes, text) in tags(page) {
        let get = |wanted: &str| attribute(&attributes, wanted);
        let text = || unescaped(text);
        if name == "form" {
            let (method, action) = (get("method").unwrap_or_default(), get("action").unwrap_or_default());
            forms.push(Form { method, action, ..Form::default() });
            is_open = true;
        } else if name == "/form" {
            is_open = false;
        }
        let Some(form) = forms.last_mut().filter(|_| is_open) else { continue };
        match (name, get("name")) {
            ("input", Some(field)) if get("type").as_deref() != Some("checkbox") => {
                form.fields.push((field, get("value").unwrap_or_default()));
            }
            // A parser leaves out the first end of a line.
            ("textarea", Some(field)) => {
                let text = text();
                form.fields.push((field, text.strip_prefix('\n').unwrap_or(&text).to_owned()));
            }
            ("select", Some(field)) => form.fields.push((field, String::new())),
            ("option", _) if attributes.contains(" selected") => {
                form.fields.last_mut().expect("it is in a select").1 = get("value").unwrap_or_default();
            }
            ("button", _) => form.buttons.push((get("value").unwrap_or_default(), text().trim().to_owned())),
            _ => {}
        }
    }
    forms
}

/// The values of an attribute, of all tags.
pub(crate) fn attributes(page: &str, wanted: &str) -> Vec<String> {
    tags(page).filter_map(|(_, attributes, _)| attribute(&attributes, wanted)).collect()
}

/// The names of all tags.
pub(crate) fn tag_names(page: &str) -> Vec<&str> {
    tags(page).map(|(name, ..)| name).collect()
}

/// Each tag with the names of its attributes: what a browser makes of a page, without its texts.
pub(crate) fn shape(page: &str) -> Vec<String> {
    tags(page).map(|(name, attributes, _)| format!("{name} {:?}", names(&attributes))).collect()
}

/// The names of the attributes of a tag, whose values are in quotes, or are left out.
fn names(attributes: &str) -> Vec<String> {
    let (mut names, mut name, mut is_value) = (Vec::new(), String::new(), false);
    for char in attributes.chars().chain([' ']) {
        match char {
            '"' => is_value = !is_value,
            _ if is_value => {}
            ' ' | '=' if !name.is_empty() => names.push(std::mem::take(&mut name)),
            ' ' | '=' => {}
            char => name.push(char),
        }
    }
    names
}

/// The values of the boxes of a page.
pub(crate) fn boxes(page: &str) -> Vec<String> {
    let boxes = tags(page).filter(|(_, attributes, _)| attribute(attributes, "type").as_deref() == Some("checkbox"));
    boxes.filter_map(|(_, attributes, _)| attribute(&attributes, "value")).collect()
}

/// Each tag: its name, its attributes as they are written, and the text that follows. The page quotes all values, and
/// escapes what would end a tag.
fn tags(page: &str) -> impl Iterator<Item = (&str, String, &str)> {
    page.split('<').skip(1).map(|tag| {
        let (tag, text) = tag.split_once('>').unwrap_or((tag, ""));
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        (name, format!(" {attributes}"), text)
    })
}

fn attribute(attributes: &str, wanted: &str) -> Option<String> {
    let (_, rest) = attributes.split_once(&format!(" {wanted}=\""))?;
    rest.split_once('"').map(|(value, _)| unescaped(value))
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}
