//! What is kept of an endpoint's answer: its beginning, for whoever looks for the reason of a failure. An answer may
//! hold anything, also what the receiver knows of the person, so words that could be personal or secret are taken out.

/// Bytes of an answer that are looked at.
const LOOKED_AT: usize = 200;
/// More digits than this in a word could be a number of a person, a phone or a document.
const MOST_DIGITS: usize = 6;
/// Longer words could be tokens.
const LONGEST_WORD: usize = 24;
const TAKEN_OUT: &str = "[…]";
/// What a word like these names stands in the word behind it.
const NAMES: [&str; 10] =
    ["token", "secret", "password", "passwd", "authorization", "bearer", "basic", "cookie", "session", "key"];

/// The beginning of `answer` as it may be kept; `None` where nothing is left. Words are runs of letters, digits and
/// the signs of tokens, numbers and mail addresses. One with more than six digits, with an `@`, with more than 24
/// characters, or behind a word such as `token`, is replaced, and so is one that is cut off.
pub(super) fn excerpt(answer: &[u8]) -> Option<String> {
    let is_whole = answer.len() <= LOOKED_AT;
    let text: String = String::from_utf8_lossy(&answer[..answer.len().min(LOOKED_AT)])
        .chars()
        .map(|next| if next.is_control() || next == char::REPLACEMENT_CHARACTER { ' ' } else { next })
        .collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut kept = String::new();
    let mut is_named = false;
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = rest.find(|next| !is_of_word(next)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if !word.is_empty() {
            let is_cut = after.is_empty() && !is_whole;
            let lower = word.to_lowercase();
            if is_named || is_cut || is_suspicious(word) {
                kept.push_str(TAKEN_OUT);
            } else {
                kept.push_str(word);
            }
            // "Authorization: Bearer x" names twice.
            is_named = NAMES.iter().any(|name| lower.ends_with(name));
        }
        let gap = after.find(is_of_word).unwrap_or(after.len());
        kept.push_str(&after[..gap]);
        rest = &after[gap..];
    }
    (!kept.is_empty()).then_some(kept)
}

fn is_of_word(next: char) -> bool {
    next.is_alphanumeric() || matches!(next, '_' | '-' | '.' | '+' | '/' | '@' | '%' | '~' | '#')
}

fn is_suspicious(word: &str) -> bool {
    word.chars().count() > LONGEST_WORD
        || word.contains('@')
        || word.chars().filter(|next| next.is_numeric()).count() > MOST_DIGITS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reason_stays_readable() {
        let kept = |text: &str| excerpt(text.as_bytes()).unwrap();
        assert_eq!(kept("ok"), "ok");
        assert_eq!(kept("{\"error\":\"no such order\",\"code\":404}"), "{\"error\":\"no such order\",\"code\":404}");
        assert_eq!(kept("<html>\r\n  <h1>502 Bad Gateway</h1>"), "<html> <h1>502 Bad Gateway</h1>");
        assert_eq!(excerpt(b" \n\0 "), None);
        assert_eq!(excerpt(b""), None);
    }

    #[test]
    fn what_could_be_personal_or_secret_is_taken_out() {
        for (text, planted) in [
            ("user jane@example.com is unknown", "jane@example"),
            ("passport A1234567 is unknown", "A1234567"),
            ("call +49-30-1234567", "1234567"),
            ("born 1987-06-05", "1987-06-05"),
            ("number 3173019876543210", "3173"),
            ("sent eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "eyJ"),
            ("Authorization: Bearer abc", "abc"),
            ("{\"access_token\":\"abc\"}", "abc"),
            ("password = hunter2", "hunter2"),
        ] {
            let kept = excerpt(text.as_bytes()).unwrap();
            assert!(!kept.contains(planted) && kept.contains(TAKEN_OUT), "{kept}");
        }
        // A number that is cut in two is not kept by half.
        let cut = format!("{}12345678", " ".repeat(195));
        assert_eq!(excerpt(cut.as_bytes()).unwrap(), TAKEN_OUT);
    }

    proptest! {
        #[test]
        fn any_answer_is_kept_short_printable_and_without_long_numbers(answer: Vec<u8>) {
            if let Some(kept) = excerpt(&answer) {
                prop_assert!(kept.chars().count() <= 3 * LOOKED_AT);
                prop_assert!(!kept.chars().any(char::is_control));
                let longest = kept.split(|next: char| !next.is_ascii_digit()).map(str::len).max().unwrap_or(0);
                prop_assert!(longest <= MOST_DIGITS);
            }
        }
    }
}
