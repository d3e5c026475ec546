//! The colours can be told apart, by day and by night (WCAG 2.2, success criterion 1.4.3).

use std::collections::HashMap;

/// The colours of a block of the style sheet, by their names.
fn colours(block: &str) -> HashMap<&str, [f64; 3]> {
    let lines = block.lines().filter_map(|line| line.trim().strip_prefix("--")?.strip_suffix(';')?.split_once(": #"));
    let channel = |digits: &str, at| f64::from(u8::from_str_radix(&digits[at..at + 2], 16).unwrap()) / 255.0;
    lines.map(|(name, digits)| (name, [0, 2, 4].map(|at| channel(digits, at)))).collect()
}

fn luminance(colour: [f64; 3]) -> f64 {
    let linear = colour.map(|part| if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) });
    0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
}

fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
    let [one, other] = [luminance(one), luminance(other)].map(|light| light + 0.05);
    one.max(other) / one.min(other)
}

#[test]
fn each_text_can_be_read_on_its_ground_by_day_and_by_night() {
    let style = include_str!("../../src/page/style.css");
    let (day, rest) = style.split_once("@media (prefers-color-scheme: dark)").unwrap();
    let (night, _) = rest.split_once("\n}\n").unwrap();
    for colours in [day, night].map(colours) {
        for text in ["text", "quiet", "link", "bad", "good", "mark"] {
            for ground in ["ground", "raised"] {
                let contrast = contrast(colours[text], colours[ground]);
                assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.2}");
            }
        }
        assert!(contrast(colours["text"], colours["bad-ground"]) >= 4.5);
        // The borders of controls.
        assert!(contrast(colours["quiet"], colours["ground"]) >= 3.0);
    }
}
