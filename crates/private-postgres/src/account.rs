//! Who runs the server. PostgreSQL refuses root, so root hands it to `postgres`, or else to `nobody`.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// A user that root can run a program as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// The user to hand the server to; `None` where this process can run it itself.
    pub(crate) fn for_server() -> Result<Option<Self>, Error> {
        if !is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let account = ["postgres", "nobody"].into_iter().find_map(|name| Self::named(name, &users));
        account.map(Some).ok_or(Error::NoAccount)
    }

    /// Finds a user in the text of `/etc/passwd`.
    fn named(name: &str, users: &str) -> Option<Self> {
        let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let mut user = fields.filter(|fields| fields.first() == Some(&name));
        match user.next()?[..] {
            [_, _, uid, gid, ..] => Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? }),
            _ => None,
        }
    }

    /// The user whom an existing folder belongs to, unless that is root.
    pub(crate) fn owner_of(folder: &Path) -> Option<Self> {
        let metadata = fs::metadata(folder).ok()?;
        (metadata.uid() != 0).then_some(Self { uid: metadata.uid(), gid: metadata.gid() })
    }

    /// Makes the program run as this user.
    pub(crate) fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Makes the folder this user's.
    pub(crate) fn own(self, folder: &Path) -> Result<(), Error> {
        chown(folder, Some(self.uid), Some(self.gid)).map_err(|e| Error::folder("hand over", folder, e))
    }

    /// The lowest existing folder on the way to `path` that this user cannot enter.
    pub(crate) fn barred_from(self, path: &Path) -> Option<PathBuf> {
        let enterable = |folder: &Path| {
            let Ok(metadata) = fs::metadata(folder) else { return true };
            let bit = if metadata.uid() == self.uid {
                0o100
            } else if metadata.gid() == self.gid {
                0o010
            } else {
                0o001
            };
            metadata.mode() & bit != 0
        };
        path.ancestors().find(|folder| !enterable(folder)).map(Path::to_owned)
    }
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The folder that the variable names, by the XDG rules: absolute, or else the default under the home folder.
pub(crate) fn user_folder(variable: &str, under_home: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    named.or_else(|| home().map(|home| home.join(under_home)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str =
        "root:x:0:0:root:/root:/bin/sh\npostgresql:x:7:7::/:/\npostgres:x:101:104::/var:/bin/sh\nbroken\n";

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        assert_eq!(Account::named("postgres", USERS), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(Account::named("nobody", USERS), None);
        assert_eq!(Account::named("broken", USERS), None);
    }

    #[test]
    fn a_closed_folder_on_the_way_is_named() {
        let stranger = Account { uid: 65_533, gid: 65_533 };
        let closed = std::env::temp_dir().join(format!("gainsay-closed-{}", std::process::id()));
        fs::create_dir(&closed).expect("the temporary folder is writable");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&closed, mode).expect("own folder");
        assert_eq!(stranger.barred_from(&closed.join("missing/data")), Some(closed.clone()));
        assert_eq!(stranger.barred_from(Path::new("/")), None);
        fs::remove_dir(&closed).expect("own folder");
    }
}
