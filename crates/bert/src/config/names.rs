//! The names of labels.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;

/// The names of a classifier's labels, by id.
///
/// Labels without names of their own are called `LABEL_0`, `LABEL_1`, ... Their names are made when one is asked for, so
/// a file that only states how many there are takes no memory for them.
///
/// ```
/// use cloze_bert::{BertConfig, Labels};
/// let config = BertConfig { labels: Labels::numbered(3), ..BertConfig::base() };
/// assert_eq!(*config.labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
/// ```
#[derive(Clone)]
pub struct Labels {
    count: usize,
    /// As many names, once they are known.
    names: OnceLock<Vec<String>>,
}

impl Labels {
    /// Returns this many labels with the default names: `LABEL_0`, `LABEL_1`, ...
    pub fn numbered(count: usize) -> Labels {
        Labels { count, names: OnceLock::new() }
    }

    /// Returns the number of labels.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the name of a label, which is the default one unless names are known.
    fn name(&self, id: usize) -> Cow<'_, str> {
        self.names.get().map_or_else(|| default_name(id).into(), |names| names[id].as_str().into())
    }
}

/// Returns the default name of a label.
fn default_name(id: usize) -> String {
    format!("LABEL_{id}")
}

impl Deref for Labels {
    type Target = [String];

    fn deref(&self) -> &[String] {
        self.names.get_or_init(|| (0..self.count).map(default_name).collect())
    }
}

impl From<Vec<String>> for Labels {
    fn from(names: Vec<String>) -> Labels {
        Labels { count: names.len(), names: names.into() }
    }
}

impl<S: AsRef<str>> FromIterator<S> for Labels {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Labels {
        names.into_iter().map(|name| name.as_ref().to_string()).collect::<Vec<String>>().into()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Labels) -> bool {
        let are_numbered = || self.names.get().is_none() && other.names.get().is_none();
        self.count == other.count && (are_numbered() || (0..self.count).all(|id| self.name(id) == other.name(id)))
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries((0..self.count).map(|id| self.name(id))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BertConfig;

    /// 41 bytes that could take 100 MB.
    #[test]
    fn a_number_of_labels_takes_no_memory() {
        let config = BertConfig::from_json(r#"{"vocab_size": 8, "num_labels": 1000000}"#).unwrap();
        config.validate().unwrap();
        assert_eq!((config.num_labels(), config.labels == Labels::numbered(1_000_000)), (1_000_000, true));
        assert!(
            config.clone() == config && config != BertConfig { labels: Labels::numbered(999_999), ..config.clone() }
        );
        assert!(config.labels.names.get().is_none());
        assert_eq!(config.label_id("LABEL_999999"), Some(999_999));
    }

    #[test]
    fn names_are_compared_whether_they_are_known_or_not() {
        let (numbered, named) = (Labels::numbered(2), Labels::from_iter(["LABEL_0", "LABEL_1"]));
        assert!(numbered == named && numbered != Labels::from_iter(["LABEL_0", "b"]));
        assert!(numbered.names.get().is_none());
        assert_eq!((format!("{numbered:?}"), numbered[1].as_str()), (format!("{named:?}"), "LABEL_1"));
        assert!(numbered == named && numbered == Labels::numbered(2) && numbered != Labels::numbered(3));
        assert!(Labels::numbered(0).is_empty() && !numbered.is_empty());
    }
}
