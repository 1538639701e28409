//! What somebody meant who wrote something else.

/// The name nearest to `written`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (written.len() / 3).max(1);
    names
        .into_iter()
        .map(|name| (distance(written, name), name))
        .filter(|(far, _)| *far <= most)
        .min()
        .map(|n| n.1)
}

/// Letters to insert, remove or change to make one text of the other.
pub(crate) fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_counted_in_letters() {
        for (one, other, far) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("window", "window", 0)]
        {
            assert_eq!(distance(one, other), far, "{one} {other}");
            assert_eq!(distance(other, one), far, "{other} {one}");
        }
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        let names = ["window_ms", "hold_ms", "listen"];
        assert_eq!(nearest("windw_ms", names), Some("window_ms"));
        assert_eq!(nearest("lisen", names), Some("listen"));
        assert_eq!(nearest("colour", names), None);
    }
}
