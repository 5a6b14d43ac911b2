//! Downloads a dataset's files from their public home.
//!
//! A file grows under `NAME.part`, which a later run takes up where it ended (HTTP `Range`); only a file of the card's
//! length and checksum is renamed to `NAME`, so half a file never bears the final name. Nothing is read past the length
//! on the card, whatever a server sends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;

use super::card::{Card, FileCard, expect_checksum};
use crate::checksum::Checksum;
use crate::cli::UserError;
use crate::progress;

/// How often a broken transfer is taken up again before giving up.
const ATTEMPTS: usize = 3;

/// How long a server may say nothing, at any point.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It had been there before, whole.
    Present(PathBuf),
    /// It was downloaded now.
    Fetched(PathBuf),
}

impl Outcome {
    /// Where the file lies.
    pub fn path(&self) -> &Path {
        match self {
            Outcome::Present(path) | Outcome::Fetched(path) => path,
        }
    }
}

/// Makes all files of `card` lie in `directory/FOLDER`, downloading what is not there yet; files that the repository
/// owns are verified where they are. `each` hears what became of every file as soon as it is known.
///
/// # Errors
/// The first file that cannot be had: no connection, a status that is not success, a length or checksum that is not the
/// card's, a folder that cannot be written. What had been received of it is kept for the next run, unless it is wrong.
pub fn fetch(card: &Card, directory: &Path, each: &mut dyn FnMut(&str, &Outcome) -> Result<()>) -> Result<()> {
    for (name, file) in &card.files {
        let outcome = match &file.url {
            None => Outcome::Present(card.path(name)?),
            Some(url) => one(card, name, file, url, &directory.join(card.folder()))
                .with_context(|| format!("cannot fetch {name} of dataset {}", card.name))?,
        };
        each(name, &outcome)?;
    }
    Ok(())
}

fn one(card: &Card, name: &str, file: &FileCard, url: &str, folder: &Path) -> Result<Outcome> {
    let whole = folder.join(name);
    if whole.exists() {
        card.verify(name, &whole).context("a file of that name is there, but it is another one; remove it first")?;
        return Ok(Outcome::Present(whole));
    }
    fs::create_dir_all(folder).map_err(|error| UserError::new(format!("cannot make {}: {error}", folder.display())))?;
    let part = folder.join(format!("{name}.part"));
    let mut transfer = Transfer::start(&part, file, url)?;
    transfer.run(name)?;
    drop(transfer);
    fs::rename(&part, &whole).with_context(|| format!("cannot rename {} to {}", part.display(), whole.display()))?;
    Ok(Outcome::Fetched(whole))
}

/// A partial file and what is still missing of it.
struct Transfer<'a> {
    path: &'a Path,
    file: File,
    expected: &'a FileCard,
    url: &'a str,
    /// Bytes in the partial file.
    have: u64,
}

/// How a stretch of a transfer ended.
enum Stretch {
    /// All bytes are here.
    Whole,
    /// The connection broke; what came is kept.
    Broken(String),
}

impl<'a> Transfer<'a> {
    /// Opens the partial file, alone: two downloads of one file would write into each other.
    fn start(path: &'a Path, expected: &'a FileCard, url: &'a str) -> Result<Self> {
        let shown = path.display();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| UserError::new(format!("cannot write {shown}: {error}")))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("{shown} is being downloaded by another process"),
            Err(TryLockError::Error(error)) => bail!("cannot lock {shown}: {error}"),
        }
        let have = file.metadata().with_context(|| format!("cannot read {shown}"))?.len();
        Ok(Transfer { path, file, expected, url, have })
    }

    fn run(&mut self, name: &str) -> Result<()> {
        if self.have > self.expected.bytes {
            self.restart()?;
        }
        let resumed = self.have > 0;
        let bar = progress::bytes(self.expected.bytes, name);
        let mut broken = String::new();
        for _ in 0..ATTEMPTS {
            if self.have == self.expected.bytes {
                break;
            }
            match self.stretch(&bar)? {
                Stretch::Whole => break,
                Stretch::Broken(why) => broken = why,
            }
        }
        bar.finish_and_clear();
        let (have, all) = (self.have, self.expected.bytes);
        ensure!(
            have == all,
            "{} stopped after {have} of {all} bytes ({broken}); what came is kept, run again to go on",
            self.url
        );
        self.file.sync_all().with_context(|| format!("cannot write {}", self.path.display()))?;
        let sum = self.checksum()?;
        if let Err(error) = expect_checksum(self.path, &sum, self.expected) {
            // Wrong bytes must not be the start of the next attempt.
            self.restart()?;
            let more =
                if resumed { "part of it was from an earlier run; run again to start afresh" } else { "dropped" };
            return Err(error.context(format!("what {} sent is not the file on the card ({more})", self.url)));
        }
        Ok(())
    }

    /// Empties the partial file.
    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).with_context(|| format!("cannot write {}", self.path.display()))?;
        self.have = 0;
        Ok(())
    }

    /// Asks for what is missing and appends what comes.
    fn stretch(&mut self, bar: &ProgressBar) -> Result<Stretch> {
        let agent = ureq::Agent::config_builder()
            .user_agent(concat!("ryzanstein/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .build()
            .new_agent();
        let mut request = agent.get(self.url);
        if self.have > 0 {
            request = request.header("Range", format!("bytes={}-", self.have));
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(ureq::Error::BadUri(why)) => bail!("the card's url {} is not one: {why}", self.url),
            Err(error) if self.have > 0 => return Ok(Stretch::Broken(error.to_string())),
            Err(error) => {
                return Err(error).with_context(|| format!("no answer from {} (is this machine online?)", self.url));
            }
        };
        self.position(&response)?;
        bar.set_position(self.have);
        self.append(response.body_mut().as_reader(), bar)
    }

    /// Sets the partial file to where the answer's body begins, or says why the answer is of no use.
    fn position(&mut self, response: &ureq::http::Response<ureq::Body>) -> Result<()> {
        let all = self.expected.bytes;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        match response.status().as_u16() {
            206 => {
                let range = header("content-range").unwrap_or_default();
                let wanted = format!("bytes {}-{}/{all}", self.have, all - 1);
                ensure!(range == wanted, "{} sent the range '{range}' where '{wanted}' was asked for", self.url);
            }
            200 => {
                // No `Range` was asked for, or the server does not know it.
                self.restart()?;
                if let Some(length) = header("content-length") {
                    ensure!(length == all.to_string(), "{} has {length} bytes where its card says {all}", self.url);
                }
            }
            status => bail!("{} answered {status}", self.url),
        }
        self.file.seek(SeekFrom::Start(self.have)).with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(())
    }

    fn append(&mut self, mut body: impl Read, bar: &ProgressBar) -> Result<Stretch> {
        let mut piece = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut piece) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Stretch::Broken(error.to_string())),
            };
            if read == 0 {
                let whole = self.have == self.expected.bytes;
                return Ok(if whole { Stretch::Whole } else { Stretch::Broken("the server closed early".to_string()) });
            }
            if self.have + read as u64 > self.expected.bytes {
                self.restart()?;
                bail!("{} sent more than the {} bytes on its card", self.url, self.expected.bytes);
            }
            self.file.write_all(&piece[..read]).with_context(|| format!("cannot write {}", self.path.display()))?;
            self.have += read as u64;
            bar.set_position(self.have);
        }
    }

    /// The checksum of the partial file as it lies on disk: what was resumed counts as much as what came now.
    fn checksum(&mut self) -> Result<String> {
        let mut sum = Checksum::default();
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| io::copy(&mut self.file, &mut sum))
            .with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(sum.digits())
    }
}
