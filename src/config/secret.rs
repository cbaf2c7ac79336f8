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
    let inline = section.text("password");
    let file = section.text("password_file").map(|text| around.path(text));
    if inline.is_some() && file.is_some() {
        section.fault("password_file", "is given beside password; give one of them");
        return None;
    }
    if let Some(text) = inline {
        if text.is_empty() {
            section.fault("password", "is empty");
        }
        if matches!(section.place_of("password"), Place::Line { .. }) {
            section.warn("password", "is written in the configuration; password_file keeps it apart");
        }
        return Some(Secret::new(text.to_owned()));
    }
    let file = file?;
    match from_file(&file) {
        Ok(secret) => {
            if readable_by_all(&file) {
                section.warn("password_file", format!("{} can be read by every user", file.display()));
            }
            Some(secret)
        }
        Err(reason) => {
            section.fault("password_file", format!("{} {reason}", file.display()));
            None
        }
    }
}

/// The systemd credential of this name, where the service manager passed one on (systemd.exec(5), LoadCredential=).
pub(super) fn credential(section: &Section<'_>, around: &Surroundings<'_>, name: &str) -> Option<Secret> {
    let (_, directory) = around.env.iter().find(|(variable, _)| variable == "CREDENTIALS_DIRECTORY")?;
    let file = Path::new(directory).join(name);
    if !file.exists() {
        return None;
    }
    match from_file(&file) {
        Ok(secret) => Some(secret),
        Err(reason) => {
            section.fault("password_file", format!("the systemd credential {} {reason}", file.display()));
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
