//! SHA-256 of files and bytes, as the 64 lowercase hexadecimal digits that cards and manifests hold.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// A running checksum: feed it bytes by [`io::Write`], then ask for the digits.
#[derive(Default)]
pub struct Checksum(Sha256);

impl Checksum {
    /// The digits of everything written so far.
    pub fn digits(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl io::Write for Checksum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The SHA-256 of `bytes`.
pub fn of_bytes(bytes: &[u8]) -> String {
    let mut sum = Checksum::default();
    sum.0.update(bytes);
    sum.digits()
}

/// The SHA-256 of a file's content, read in pieces of 1 MiB.
///
/// # Errors
/// A file that cannot be opened or read, with its path.
pub fn of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut sum = Checksum::default();
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut piece).with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            return Ok(sum.digits());
        }
        sum.0.update(&piece[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_fips_180_4() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_bytes(b"abc"), abc);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("abc");
        std::fs::write(&file, "abc").unwrap();
        assert_eq!(of_file(&file).unwrap(), abc);
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = format!("{:#}", of_file(Path::new("/no/such/file")).unwrap_err());
        assert!(message.contains("/no/such/file"), "{message}");
    }
}
