//! The page that people look at: one self-contained document that reads the public overview and the event
//! stream, and shows neither prompts nor secrets because neither is in them.

/// The document. It loads nothing from elsewhere.
pub(crate) const PAGE: &str = include_str!("index.html");

/// What the page may do: its own inline style and script, requests to this service, nothing else. The two
/// `unsafe-inline` are safe here since the document is a constant and no data is ever parsed as markup.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
     script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::PAGE;

    /// A page that loads a script or a font from elsewhere would tell others who looks at it.
    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for needle in ["http://", "https://", "src=\"", "@import", "url("] {
            assert!(!PAGE.contains(needle), "the page contains {needle}");
        }
    }

    /// Text from others shown as markup would let a worker's device name run scripts.
    #[test]
    fn the_page_never_parses_data_as_markup() {
        for needle in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!PAGE.contains(needle), "the page contains {needle}");
        }
    }
}
