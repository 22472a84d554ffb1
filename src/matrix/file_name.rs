//! Names of files and folders from names that people gave: labels, tiers, values of axes.

/// The most bytes of such a name. A file's name can have 255, and endings take some.
const MAX_BYTES: usize = 160;

/// `text` as the name of a file: ASCII letters, digits, and `-_.=+`, others as `_`. It never begins with a
/// dot (such files are hidden, and some names of them mean something), nor with a dash (which commands
/// take for an option); a name that is too long ends in a hash of all of it. Two texts may share a name.
pub(crate) fn file_name(text: &str) -> String {
    let keep = |(at, c): (usize, char)| {
        let fits = c.is_ascii_alphanumeric() || "_=+".contains(c) || (at > 0 && "-.".contains(c));
        if fits { c } else { '_' }
    };
    let mut name: String = text.chars().enumerate().map(keep).collect();
    if name.is_empty() {
        name.push('_');
    }
    if name.len() > MAX_BYTES {
        let hash = blake3::hash(text.as_bytes()).to_hex();
        name.truncate(MAX_BYTES - 11);
        name.push('-');
        name.push_str(&hash[..10]);
    }
    name
}

/// Whether `name` names a file of a folder, and neither a hidden one nor another folder's.
pub(crate) fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn readable_names_stay_and_others_mean_nothing_on_disk() {
        for (text, name) in [
            ("rag-cpu-p512-g16-c4-x=a.b+c", "rag-cpu-p512-g16-c4-x=a.b+c"),
            (".w", "_w"),
            ("..", "_."),
            ("-rf", "_rf"),
            ("a/../b\0c", "a_.._b_c"),
            ("\u{e9} b", "__b"),
            ("", "_"),
        ] {
            assert_eq!(file_name(text), name);
        }
        let long = |end: &str| file_name(&format!("{}{end}", "v".repeat(4000)));
        assert_ne!(long("1"), long("2"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_that_every_disk_and_command_takes(text in any::<String>()) {
            let name = file_name(&text);
            prop_assert!(!name.is_empty() && name.len() <= MAX_BYTES);
            prop_assert!(!name.starts_with(['.', '-']) && is_file_name(&name));
            prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.=+".contains(c)));
        }
    }
}
