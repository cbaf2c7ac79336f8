//! What is wrong with a file: each fault with its place, all of them at once.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// 1-based line of a file.
    Line { file: Arc<Path>, line: usize },
    /// A file as a whole, or a directory.
    File(Arc<Path>),
    /// An environment variable.
    Variable(String),
    /// A row of the database, as people would look for it.
    Row(Arc<str>),
    /// Nowhere: a built-in default.
    BuiltIn,
}

impl Place {
    /// The file, if it is in one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Place::Line { file, .. } | Place::File(file) => Some(file),
            Place::Variable(_) | Place::Row(_) | Place::BuiltIn => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { file, line } => write!(f, "{}:{line}", file.display()),
            Place::File(file) => write!(f, "{}", file.display()),
            Place::Variable(name) => f.write_str(name),
            Place::Row(row) => f.write_str(row),
            Place::BuiltIn => f.write_str("built-in default"),
        }
    }
}

/// One thing that is wrong. Never holds a secret: values of keys that can carry one are not quoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    pub place: Place,
    /// Dotted key; empty where it concerns no key.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " ({suggestion})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order of the places; displays one fault per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Sorts by place and leaves out repeats.
    pub fn new(mut faults: Vec<Fault>) -> Faults {
        faults.sort();
        faults.dedup();
        Faults(faults)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_vec(self) -> Vec<Fault> {
        self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// What is wrong with one value; the place and the key are the reader's to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub message: String,
    pub suggestion: Option<String>,
}

impl Wrong {
    pub fn new(message: impl Into<String>) -> Wrong {
        Wrong { message: message.into(), suggestion: None }
    }

    pub fn suggest(mut self, suggestion: Option<String>) -> Wrong {
        self.suggestion = suggestion;
        self
    }
}

impl From<String> for Wrong {
    fn from(message: String) -> Wrong {
        Wrong::new(message)
    }
}

impl From<&str> for Wrong {
    fn from(message: &str) -> Wrong {
        Wrong::new(message)
    }
}

/// ``did you mean `x`?`` for the candidate nearest to `word`, if one is near.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// The candidate nearest to `word`: at most a third of its letters (one at least) mistyped, or one begins the other.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = word.to_lowercase();
    let length = wanted.chars().count();
    let allowed = (length / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            // They are at least as far apart as they differ in length; to find out how far is dear.
            let near = lower.chars().count().abs_diff(length) <= allowed || begins(&wanted, &lower);
            near.then(|| (distance(&wanted, &lower), candidate))
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn distance(wanted: &str, candidate: &str) -> usize {
    let distance = strsim::damerau_levenshtein(wanted, candidate);
    if begins(wanted, candidate) { distance.min(1) } else { distance }
}

fn begins(wanted: &str, candidate: &str) -> bool {
    wanted.len().min(candidate.len()) >= 3 && (candidate.starts_with(wanted) || wanted.starts_with(candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_and_a_far_one_is_not() {
        let keys = ["url", "version", "client_id", "keep_alive", "receive_maximum"];
        assert_eq!(nearest("keepalive", keys), Some("keep_alive"));
        assert_eq!(nearest("ulr", keys), Some("url"));
        assert_eq!(nearest("receive_max", keys), Some("receive_maximum"));
        assert_eq!(nearest("colour", keys), None);
    }

    #[test]
    fn faults_come_in_the_order_of_lines_one_to_a_line_of_text() {
        let file: Arc<Path> = Arc::from(Path::new("a.toml"));
        let fault = |line, key: &str, suggestion: Option<&str>| Fault {
            place: Place::Line { file: file.clone(), line },
            key: key.to_owned(),
            message: "wrong".to_owned(),
            suggestion: suggestion.map(str::to_owned),
        };
        let faults = Faults::new(vec![fault(10, "b", Some("try c")), fault(9, "a", None), fault(9, "a", None)]);
        assert_eq!(faults.to_string(), "a.toml:9: a: wrong\na.toml:10: b: wrong (try c)");
    }
}
