//! Text as part of HTML or SVG.

/// `text` with what would be read as markup spelled out, within elements and quoted attributes.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
