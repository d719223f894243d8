//! Query parameters, read as OpenWhisk reads them; an empty query (`?`) is none.

use std::borrow::Cow;

use super::reject::Reject;

/// Longest list, and the limit that stands for 0.
const LIST_MAX: usize = 200;
/// Length of a list for which no limit is given.
const LIST_DEFAULT: usize = 30;

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Reject> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace('+', " ");
            let value = percent_decode(&value).ok_or_else(|| Reject::query(name, "bad escape"))?;
            Ok((name.to_owned(), value.into_owned()))
        });
        decoded.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// A yes or no; absent or empty is `default`.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Reject> {
        let Some(value) = self.text(name).filter(|value| !value.is_empty()) else {
            return Ok(default);
        };
        match value.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(Reject::query(
                name,
                format!("'{value}' is not a valid Boolean value"),
            )),
        }
    }

    /// How long a list may be.
    pub(super) fn limit(&self, collection: &str) -> Result<usize, Reject> {
        match self.integer("limit", collection)? {
            None => Ok(LIST_DEFAULT),
            Some(0) => Ok(LIST_MAX),
            Some(n) => usize::try_from(n)
                .ok()
                .filter(|n| *n <= LIST_MAX)
                .ok_or_else(|| {
                    let range = format!("is not in the range of 0 to {LIST_MAX} for {collection}.");
                    Reject::query("limit", format!("The value '{n}' {range}"))
                }),
        }
    }

    /// How many entries of a list to leave out.
    pub(super) fn skip(&self, collection: &str) -> Result<usize, Reject> {
        let n = self.integer("skip", collection)?.unwrap_or(0);
        usize::try_from(n).map_err(|_| {
            let range = format!("is not greater than or equal to 0 for {collection}.");
            Reject::query("skip", format!("The value '{n}' {range}"))
        })
    }

    fn integer(&self, name: &str, collection: &str) -> Result<Option<i64>, Reject> {
        let parse = |value: &str| {
            let not = format!("The value '{value}' is not an integer for {collection}.");
            value.parse().map_err(|_| Reject::query(name, not))
        };
        self.text(name).map(parse).transpose()
    }

    /// A time in milliseconds since 1970.
    pub(super) fn epoch_ms(&self, name: &str) -> Result<Option<u64>, Reject> {
        let parse = |value: &str| match value.parse::<i64>() {
            Ok(ms) => Ok(u64::try_from(ms).unwrap_or(0)),
            Err(_) => {
                let not = format!("Parameter is not a valid value for epoch seconds: {value}");
                Err(Reject::query(name, not))
            }
        };
        self.text(name).map(parse).transpose()
    }
}

/// Replaces `%41` by `A`; `None` if an escape is broken or the result is not UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        if *byte != b'%' {
            bytes.push(*byte);
            rest = after;
            continue;
        }
        let digits = after.get(..2).and_then(|d| std::str::from_utf8(d).ok())?;
        if !digits.bytes().all(|d| d.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after.get(2..)?;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).unwrap()
    }

    #[test]
    fn broken_values_are_refused_with_openwhisks_words() {
        for (text, error) in [
            (
                "limit=201",
                "The query parameter 'limit' was malformed:\nThe value '201' is not in the range \
                 of 0 to 200 for actions.",
            ),
            (
                "limit=-1",
                "The query parameter 'limit' was malformed:\nThe value '-1' is not in the range \
                 of 0 to 200 for actions.",
            ),
            (
                "limit=x",
                "The query parameter 'limit' was malformed:\nThe value 'x' is not an integer for \
                 actions.",
            ),
        ] {
            assert_eq!(query(text).limit("actions").unwrap_err().error, error);
        }
        assert!(query("skip=-1").skip("actions").is_err());
        assert!(query("blocking=maybe").flag("blocking", false).is_err());
        assert!(query("since=soon").epoch_ms("since").is_err());
        assert!(Query::parse("name=%zz").is_err());
    }

    #[test]
    fn absent_empty_and_zero_have_their_defaults() {
        for text in ["", "&", "limit"] {
            let q = query(text);
            if text != "limit" {
                assert_eq!(q.limit("actions").unwrap(), LIST_DEFAULT);
            }
            assert!(!q.flag("blocking", false).unwrap());
        }
        assert_eq!(query("limit=0").limit("actions").unwrap(), LIST_MAX);
        assert_eq!(query("a=1&limit=7").limit("actions").unwrap(), 7);
        assert!(query("blocking=").flag("blocking", true).unwrap());
        assert!(query("blocking=TRUE").flag("blocking", false).unwrap());
    }

    #[test]
    fn escapes_are_decoded_exactly() {
        for bad in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
        assert_eq!(percent_decode("a%20b%2Fc").unwrap(), "a b/c");
        assert_eq!(percent_decode("%C3%A4").unwrap(), "ä");
        assert_eq!(query("name=a+b").text("name"), Some("a b"));
    }
}
