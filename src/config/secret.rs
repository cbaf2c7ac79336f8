//! Passwords from files, systemd credentials and, if it must be, the configuration itself.

use std::fmt;
use std::path::Path;

use super::document::read_text;
use super::fault::Place;
use super::load::Surroundings;
use super::section::Section;

/// Largest password file, bytes.
const MAX_SECRET: u64 = 64 << 10;

/// A password, or a URL that has one; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What `password` and `password_file` of a section say.
pub(super) fn password(section: &mut Section<'_>, around: &Surroundings<'_>) -> Option<Secret> {
    given(section, around, ["password", "password_file"])
}

/// A secret under one key, or in the file that the other key names.
pub(super) fn given(section: &mut Section<'_>, around: &Surroundings<'_>, keys: [&'static str; 2]) -> Option<Secret> {
    let [key, file_key] = keys;
    let inline = section.text(key);
    let file = section.text(file_key).map(|text| around.path(text));
    if inline.is_some() && file.is_some() {
        section.fault(file_key, format!("is given beside {key}; give one of them"));
        return None;
    }
    if let Some(text) = inline {
        if text.is_empty() {
            section.fault(key, "is empty");
        }
        if matches!(section.place_of(key), Place::Line { .. }) {
            section.warn(key, format!("is written in the configuration; {file_key} keeps it apart"));
        }
        return Some(Secret::new(text.to_owned()));
    }
    let file = file?;
    match from_file(&file) {
        Ok(secret) => {
            if readable_by_all(&file) {
                section.warn(file_key, format!("{} can be read by every user", file.display()));
            }
            Some(secret)
        }
        Err(reason) => {
            section.fault(file_key, format!("{} {reason}", file.display()));
            None
        }
    }
}

/// The systemd credential of this name, where the service manager passed one on (systemd.exec(5), LoadCredential=);
/// `file_key`: that under which a fault is told.
pub(super) fn credential(
    section: &Section<'_>,
    around: &Surroundings<'_>,
    name: &str,
    file_key: &str,
) -> Option<Secret> {
    let (_, directory) = around.env.iter().find(|(variable, _)| variable == "CREDENTIALS_DIRECTORY")?;
    let file = Path::new(directory).join(name);
    if !file.exists() {
        return None;
    }
    match from_file(&file) {
        Ok(secret) => Some(secret),
        Err(reason) => {
            section.fault(file_key, format!("the systemd credential {} {reason}", file.display()));
            None
        }
    }
}

/// The text of the file without its last line end.
fn from_file(file: &Path) -> Result<Secret, String> {
    let text = read_text(file, MAX_SECRET)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err("is empty, expected a password".to_owned());
    }
    Ok(Secret::new(text.to_owned()))
}

#[cfg(unix)]
fn readable_by_all(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn readable_by_all(_file: &Path) -> bool {
    false
}
