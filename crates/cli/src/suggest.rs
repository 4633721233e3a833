//! "Did you mean": the known word that is nearest to a misspelt one.

/// The known word nearest to `word`, unless none is near enough to be meant. Case and dashes count for nothing, so that
/// `app-port` leads to `appPort`.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = folded(word);
    let most = 1 + word.len() / 4;
    let measured = known.into_iter().map(|known| (distance(&word, &folded(known)), known));
    measured.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// `; did you mean X?`, or nothing.
pub(crate) fn phrase(nearest: Option<impl std::fmt::Display>) -> String {
    nearest.map_or_else(String::new, |known| format!("; did you mean {known}?"))
}

fn folded(word: &str) -> Vec<char> {
    word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// How many letters must be added, dropped or changed to make one word of the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_if_one_is_near() {
        let known = ["appID", "appPort", "appProtocol", "resourcesPath", "resourcesPaths"];
        for (word, expect) in [
            ("app-port", Some("appPort")),
            ("appId", Some("appID")),
            ("apPort", Some("appPort")),
            ("resourcePath", Some("resourcesPath")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expect, "{word}");
        }
    }
}
