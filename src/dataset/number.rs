//! Numbers as data files write them, with errors that quote what was found.

use std::result::Result;

/// `text` between backticks, cut to a length that fits in a message, without what would move a terminal's cursor.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let shown = text.chars().take(LONGEST).map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c });
    let rest = if text.chars().nth(LONGEST).is_some() { "..." } else { "" };
    format!("`{}{rest}`", shown.collect::<String>())
}

/// An item id plus `shift`; the sum must be at least 1.
pub(super) fn item_id(text: &str, shift: u32) -> Result<u32, String> {
    let id = text.parse::<u32>().ok().and_then(|id| id.checked_add(shift)).filter(|&id| id > 0);
    id.ok_or_else(|| {
        let hint =
            if text == "0" { " (0 is padding; files that count from 0 are read with shift_id_by 1)" } else { "" };
        format!("expected an item id, a whole number from {} up, found {}{hint}", u32::from(shift == 0), quoted(text))
    })
}

/// A user id, at least 0: `amzn-books` numbers its users from 0.
pub(super) fn user_id(text: &str) -> Result<i64, String> {
    let id = text.parse::<i64>().ok().filter(|&id| id >= 0);
    id.ok_or_else(|| format!("expected a user id, a whole number from 0 up, found {}", quoted(text)))
}

/// A finite rating, whole or not.
pub(super) fn rating(text: &str) -> Result<f32, String> {
    let value = text.parse::<f32>().ok().filter(|value| value.is_finite());
    value.ok_or_else(|| format!("expected a rating, a finite number, found {}", quoted(text)))
}

/// Seconds; a fraction (recbole types timestamps as floats) is cut off, as the reference's cast to int64 does.
pub(super) fn timestamp(text: &str) -> Result<i64, String> {
    let float = || text.parse::<f64>().ok().filter(|time| time.abs() < i64::MAX as f64).map(|time| time as i64);
    let time = text.parse::<i64>().ok().or_else(float);
    time.ok_or_else(|| format!("expected a timestamp in seconds since 1970, found {}", quoted(text)))
}

/// UTF-8, or else ISO-8859-1, in which MovieLens wrote its titles.
pub(super) fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

/// The name of a column without byte order mark, quotes and recbole's `:type`.
pub(super) fn column_name(header: &str) -> &str {
    let name = header.trim_start_matches('\u{feff}').trim().trim_matches('"');
    name.split(':').next().unwrap_or(name).trim()
}

/// What a column of user ids may be called: see [`find_column`].
pub(super) const USER_COLUMNS: &[&str] = &["user_id", "user", "uid", "reviewer_id"];

/// What a column of item ids may be called.
pub(super) const ITEM_COLUMNS: &[&str] = &["item_id", "movie_id", "item", "iid", "product_id", "parent_asin", "asin"];

/// The column of `header` that goes by the first of the names `wanted` that there is, whatever its case and without
/// underscores: `user_id`, `userId` and `USERID` are one.
pub(super) fn find_column<T: AsRef<str>>(header: &[T], wanted: &[&str]) -> Option<usize> {
    let plain = |name: &str| name.replace('_', "").to_lowercase();
    let names: Vec<String> = header.iter().map(|name| plain(column_name(name.as_ref()))).collect();
    wanted.iter().find_map(|wanted| names.iter().position(|name| *name == plain(wanted)))
}

/// The column of item ids.
pub(crate) fn item_column<T: AsRef<str>>(header: &[T]) -> Option<usize> {
    find_column(header, ITEM_COLUMNS)
}

/// The first point in time, in seconds, that is taken for milliseconds: the year 5138.
const MILLISECONDS: i64 = 100_000_000_000;

/// Whether any of `timestamps` can hardly be seconds.
pub(super) fn are_milliseconds(timestamps: &[i64]) -> bool {
    timestamps.iter().any(|time| *time >= MILLISECONDS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_kind() {
        assert_eq!(item_id("7", 0), Ok(7));
        assert_eq!(item_id("0", 1), Ok(1));
        for bad in ["0", "-1", "", "1.5", "4294967296"] {
            assert!(item_id(bad, 0).unwrap_err().contains(&format!("found `{bad}`")), "{bad}");
        }
        assert!(item_id("4294967295", 1).is_err(), "the shift must not wrap around");
        assert_eq!(user_id("0"), Ok(0));
        assert!(user_id("-1").is_err());
        assert_eq!((rating("4"), rating("4.0"), rating("3.5")), (Ok(4.0), Ok(4.0), Ok(3.5)));
        assert!(rating("nan").is_err() && rating("inf").is_err() && rating("1e39").is_err());
        assert_eq!(
            (timestamp("978300760"), timestamp("978300760.9"), timestamp("-1")),
            (Ok(978300760), Ok(978300760), Ok(-1))
        );
        assert!(timestamp("1e30").is_err() && timestamp("nan").is_err());
    }

    #[test]
    fn text_helpers() {
        assert_eq!(quoted(&"é".repeat(80)), format!("`{}...`", "é".repeat(60)));
        assert_eq!(quoted("a\u{1b}[2J\0b"), "`a\u{fffd}[2J\u{fffd}b`");
        assert_eq!(decode(b"Mis\xe9rables"), "Mis\u{e9}rables");
        assert_eq!(decode("Misérables".as_bytes()), "Misérables");
        assert_eq!(column_name("\u{feff}item_id:token"), "item_id");
        assert_eq!(column_name(" \"movieId\" "), "movieId");
        let header = ["asin", "UserID", "item_id:token"];
        assert_eq!((find_column(&header, USER_COLUMNS), find_column(&header, ITEM_COLUMNS)), (Some(1), Some(2)));
        assert_eq!((find_column(&["rating"], USER_COLUMNS), find_column(&["userid2"], USER_COLUMNS)), (None, None));
        assert!(are_milliseconds(&[0, 1_700_000_000_000]) && !are_milliseconds(&[i64::MIN, 99_999_999_999]));
    }
}
