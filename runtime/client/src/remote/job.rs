//! A batch in parts, and a folder that keeps what is finished.

use super::store::write_whole;
use super::{Answer, QuerySection, Service, State, Ticket, Uploads, hex};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tacit_ir::artifact::v1::MAX_ROWS;
use tacit_ir::artifact::{CircuitDigest, Kind, View};
use tacit_ir::diag::{Code, Diagnostic, Result};

/// The version of the job file.
const VERSION: u32 = 1;
const FILE: &str = "job.json";
const LOCK: &str = "lock";
/// Bytes of a query from which on a batch is split, so that little is lost when one request is.
const QUERY_BYTES: u64 = 64 << 20;
/// First and longest pause between two looks for results.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// What a job is about: where one of these differs, its finished parts are no part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobId {
    /// The circuit.
    pub circuit: CircuitDigest,
    /// The client key's fingerprint, with which results are decrypted.
    pub client_key: [u8; 32],
    /// SHA-256 of the input.
    pub input: [u8; 32],
    /// Rows of it.
    pub rows: usize,
}

/// The job file: names and numbers, nothing secret.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    version: u32,
    circuit: String,
    client_key: String,
    input: String,
    rows: usize,
    /// The service that requests under way are at.
    service: String,
    parts: Vec<Part>,
    /// Ids of uploads in parts that are under way, by the names of their objects.
    #[serde(default)]
    uploads: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    first_row: usize,
    rows: usize,
    /// Attempts that failed.
    failed: u32,
    #[serde(flatten)]
    state: PartState,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum PartState {
    /// Not sent, or lost.
    Pending,
    /// Accepted by the service.
    UnderWay(Ticket),
    /// The result is in the folder.
    Done,
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct RunSettings {
    /// Requests under way at a time.
    pub in_flight: usize,
    /// Attempts of a request that fails on the server for no fault of its own.
    pub attempts: u32,
    /// Time for the whole run.
    pub deadline: Duration,
    /// The name of the evaluation key, for circuits that need one.
    pub key: Option<[u8; 32]>,
}

/// What a run has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Rows with a result.
    pub rows_done: usize,
    /// Rows whose result was there already.
    pub rows_resumed: usize,
    /// Requests sent.
    pub requests: usize,
    /// Requests that failed on the server and were sent again.
    pub repeated: usize,
    /// Bytes of the evaluation key that travelled ahead of all requests.
    pub key_bytes: u64,
    /// Bytes of query sections.
    pub query_bytes: u64,
    /// Bytes of results.
    pub result_bytes: u64,
    /// Milliseconds of encryption.
    pub encrypt_ms: f64,
    /// Milliseconds of sending; with services that answer at once of the answer, too.
    pub send_ms: f64,
    /// Milliseconds of waiting for results.
    pub wait_ms: f64,
}

/// Rows of a request: what takes about `target` on one core by prediction, of at most 64 MiB and at most `limit` bytes.
pub fn rows_per_request(row_us: Option<f64>, row_bytes: u64, limit: u64, target: Duration) -> usize {
    let by_time = row_us.map_or(f64::INFINITY, |us| target.as_secs_f64() * 1e6 / us.max(1.0));
    let by_bytes = QUERY_BYTES.min(limit) / row_bytes.max(1);
    by_time.min(by_bytes as f64).min(f64::from(MAX_ROWS)).max(1.0) as usize
}

/// A batch on its way.
#[derive(Debug)]
pub struct Job {
    folder: PathBuf,
    id: JobId,
    saved: Saved,
    /// Held against a second process on the same job.
    _lock: File,
}

impl Job {
    /// Goes on with the job in a folder, or begins one there with parts of so many rows. `restart` drops another job.
    ///
    /// # Errors
    /// [`Code::JobMismatch`] where the folder holds a job of another run, one that cannot be read, or one that another
    /// process is at work on; [`Code::OutputUnwritable`].
    pub fn open(folder: &Path, id: JobId, rows_per_request: usize, restart: bool) -> Result<Self> {
        let wrong = |what: String| {
            Diagnostic::new(Code::JobMismatch, what)
                .at(folder.display().to_string())
                .help("finish that run with its own command, choose another output, or drop it with --restart")
        };
        let unwritable = |why: std::io::Error| {
            Diagnostic::new(Code::OutputUnwritable, format!("cannot be written: {why}"))
                .at(folder.display().to_string())
                .help("check that the folder of the output exists and is writable")
        };
        let existed = folder.join(FILE).exists();
        match fs::create_dir(folder) {
            Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => return Err(unwritable(why)),
            _ => {}
        }
        let lock = File::create(folder.join(LOCK)).map_err(unwritable)?;
        if lock.try_lock().is_err() {
            return Err(wrong("another process is at work on this job".to_owned()).help("wait until it has finished"));
        }
        if existed && !restart {
            let saved = Saved::read(&folder.join(FILE)).map_err(wrong)?;
            saved.check(&id).map_err(wrong)?;
            let mut job = Job { folder: folder.to_owned(), id, saved, _lock: lock };
            job.check_results();
            job.save()?;
            return Ok(job);
        }
        let step = rows_per_request.max(1);
        let part = |first_row: usize| {
            let rows = step.min(id.rows - first_row);
            Part { first_row, rows, failed: 0, state: PartState::Pending }
        };
        // Queries of the job that is dropped must not be taken for this one's.
        for entry in fs::read_dir(folder).map_err(unwritable)? {
            let path = entry.map_err(unwritable)?.path();
            if path.extension().is_some_and(|extension| extension == "query") {
                fs::remove_file(path).map_err(unwritable)?;
            }
        }
        // Uploads of the job that is dropped are given up as soon as there is a service to do it.
        let before = Saved::read(&folder.join(FILE)).ok();
        let (service, uploads) = before.map_or_else(Default::default, |saved| (saved.service, saved.uploads));
        let saved = Saved {
            version: VERSION,
            circuit: hex(&id.circuit),
            client_key: hex(&id.client_key),
            input: hex(&id.input),
            rows: id.rows,
            service,
            parts: (0..id.rows).step_by(step).map(part).collect(),
            uploads,
        };
        let job = Job { folder: folder.to_owned(), id, saved, _lock: lock };
        job.save()?;
        Ok(job)
    }

    fn save(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.saved).map_err(|why| Diagnostic::internal(why.to_string()))?;
        write_whole(&self.folder.join(FILE), &[&text])
    }

    fn result_path(&self, part: usize) -> PathBuf {
        self.folder.join(format!("{part:05}.result"))
    }

    /// Results that are not there, or not whole, are computed again.
    fn check_results(&mut self) {
        for at in 0..self.saved.parts.len() {
            let whole = |path: &Path| fs::read(path).is_ok_and(|bytes| self.check_result(&bytes).is_ok());
            if self.saved.parts[at].state == PartState::Done && !whole(&self.result_path(at)) {
                self.saved.parts[at].state = PartState::Pending;
            }
        }
    }

    fn check_result(&self, bytes: &[u8]) -> Result<()> {
        View::read(bytes, &[Kind::Result], Kind::Result.default_limit())?.check_circuit(&self.id.circuit)
    }

    fn rows_done(&self) -> usize {
        self.saved.parts.iter().filter(|part| part.state == PartState::Done).map(|part| part.rows).sum()
    }

    /// Number of requests the batch is split into.
    pub fn parts(&self) -> usize {
        self.saved.parts.len()
    }

    /// Whether nothing was finished, and nothing is under way.
    pub fn is_untouched(&self) -> bool {
        self.saved.uploads.is_empty() && self.saved.parts.iter().all(|part| part.state == PartState::Pending)
    }

    fn query_path(&self, part: usize) -> PathBuf {
        self.folder.join(format!("{part:05}.query"))
    }

    /// The query section that an earlier run began to upload for a part, where that upload is still under way.
    fn kept_query(&self, at: usize, key: Option<[u8; 32]>) -> Option<QuerySection> {
        let bytes = fs::read(self.query_path(at)).ok()?;
        let (section, rows) = QuerySection::kept(&bytes, &self.id.circuit, key)?;
        let name = hex(&section.request_id);
        let under_way = self.saved.uploads.keys().any(|location| location.ends_with(&name));
        (under_way && rows as usize == self.saved.parts.get(at)?.rows).then_some(section)
    }

    /// Gives up uploads that this run will not go on with: those of requests whose query was not kept.
    fn abandon_uploads(&mut self, service: &dyn Service, key: Option<[u8; 32]>) -> Result<()> {
        if self.saved.uploads.is_empty() {
            return Ok(());
        }
        let queries = (0..self.parts()).filter_map(|at| self.kept_query(at, key));
        let names: Vec<String> = queries.map(|query| hex(&query.request_id)).chain(key.map(|key| hex(&key))).collect();
        self.saved.uploads.retain(|location, upload| {
            let goes_on = names.iter().any(|name| location.ends_with(name));
            if !goes_on {
                service.abandon(location, upload);
            }
            goes_on
        });
        self.save()
    }

    /// Sends what was not sent yet, waits for what is under way, and returns the result files in the order of rows. `query`
    /// encrypts a range of rows; `watch` is called whenever something was done.
    ///
    /// # Errors
    /// Those of the service and of `query`; [`Code::DeadlinePassed`]. What was finished until then is kept.
    pub fn run(
        &mut self,
        service: &dyn Service,
        settings: &RunSettings,
        query: &mut dyn FnMut(Range<usize>) -> Result<Vec<u8>>,
        watch: &mut dyn FnMut(&Progress),
    ) -> Result<(Vec<Vec<u8>>, Progress)> {
        let start = Instant::now();
        if self.saved.service != service.name() {
            self.saved.service = service.name();
            for part in self.saved.parts.iter_mut().filter(|part| matches!(part.state, PartState::UnderWay(_))) {
                part.state = PartState::Pending;
            }
            self.saved.uploads.clear();
            self.save()?;
        }
        self.abandon_uploads(service, settings.key)?;
        let done = self.rows_done();
        let mut progress = Progress { rows_done: done, rows_resumed: done, ..Progress::default() };
        watch(&progress);
        if done < self.id.rows {
            progress.key_bytes = service.prepare(&Ids(RefCell::new(self)))?;
        }
        let mut pause = PAUSES[0];
        while progress.rows_done < self.id.rows {
            let mut news = self.send_pending(service, settings, query, &mut progress, watch)?;
            let waited = Instant::now();
            for at in 0..self.saved.parts.len() {
                if let PartState::UnderWay(ticket) = self.saved.parts[at].state.clone() {
                    news |= self.look(service, settings, at, &ticket, &mut progress)?;
                    watch(&progress);
                }
            }
            let under_way = self.saved.parts.iter().any(|part| matches!(part.state, PartState::UnderWay(_)));
            if under_way && start.elapsed() >= settings.deadline {
                return Err(self.late(service, format!("no result after {} s", settings.deadline.as_secs())));
            }
            if under_way {
                pause = if news { PAUSES[0] } else { (pause * 3 / 2).min(PAUSES[1]) };
                std::thread::sleep(pause.min(settings.deadline.saturating_sub(start.elapsed())));
            }
            progress.wait_ms += waited.elapsed().as_secs_f64() * 1e3;
        }
        let read = |at: usize| {
            let path = self.result_path(at);
            fs::read(&path)
                .map_err(|why| Diagnostic::new(Code::FileUnreadable, why.to_string()).at(path.display().to_string()))
        };
        Ok(((0..self.parts()).map(read).collect::<Result<_>>()?, progress))
    }

    fn late(&self, service: &dyn Service, what: String) -> Diagnostic {
        let why = Diagnostic::new(Code::DeadlinePassed, what).at(self.folder.display().to_string());
        let why = service.suspicion().into_iter().fold(why, Diagnostic::note);
        why.help("give the same command again to go on waiting: requests under way are not sent again")
    }

    /// Sends parts while fewer than the limit are under way.
    fn send_pending(
        &mut self,
        service: &dyn Service,
        settings: &RunSettings,
        query: &mut dyn FnMut(Range<usize>) -> Result<Vec<u8>>,
        progress: &mut Progress,
        watch: &mut dyn FnMut(&Progress),
    ) -> Result<bool> {
        let mut news = false;
        for at in 0..self.saved.parts.len() {
            let under_way = self.saved.parts.iter().filter(|part| matches!(part.state, PartState::UnderWay(_))).count();
            let part = self.saved.parts[at].clone();
            if part.state != PartState::Pending || under_way >= settings.in_flight.max(1) {
                continue;
            }
            let begin = Instant::now();
            let section = match self.kept_query(at, settings.key) {
                Some(section) => section,
                None => {
                    let file = query(part.first_row..part.first_row + part.rows)?;
                    let id = crate::random::public_seed();
                    QuerySection::new(file, part.rows as u32, self.id.circuit, settings.key, id)
                }
            };
            progress.encrypt_ms += begin.elapsed().as_secs_f64() * 1e3;
            let begin = Instant::now();
            let kept = section.bytes() > service.resumes_from();
            if kept {
                write_whole(&self.query_path(at), &section.parts())?;
            }
            progress.requests += 1;
            progress.query_bytes += section.bytes();
            let answer = service.send(&section, &Ids(RefCell::new(self)))?;
            if kept {
                // What is left is found to be of no use, and removed with the folder.
                let _ = fs::remove_file(self.query_path(at));
            }
            match answer {
                Answer::Later(ticket) => {
                    self.saved.parts[at].state = PartState::UnderWay(ticket);
                    self.save()?;
                }
                Answer::Done(result) => self.finish(at, &result, progress).map_err(|why| why.at(service.name()))?,
            }
            progress.send_ms += begin.elapsed().as_secs_f64() * 1e3;
            news = true;
            watch(progress);
        }
        Ok(news)
    }

    fn finish(&mut self, at: usize, result: &[u8], progress: &mut Progress) -> Result<()> {
        self.check_result(result).map_err(|why| {
            Diagnostic::new(Code::RequestFailed, "what came back is no result of this circuit").note(why.to_string())
        })?;
        write_whole(&self.result_path(at), &[result])?;
        self.saved.parts[at].state = PartState::Done;
        self.save()?;
        progress.rows_done += self.saved.parts[at].rows;
        progress.result_bytes += result.len() as u64;
        Ok(())
    }

    /// Looks for the result of a part; whether there was news.
    fn look(
        &mut self,
        service: &dyn Service,
        settings: &RunSettings,
        at: usize,
        ticket: &Ticket,
        progress: &mut Progress,
    ) -> Result<bool> {
        let lost = |job: &mut Self| {
            job.saved.parts[at].state = PartState::Pending;
            job.saved.parts[at].failed += 1;
            job.save()
        };
        match service.poll(ticket)? {
            State::Done(result) => {
                if let Err(why) = self.finish(at, &result, progress) {
                    lost(self)?;
                    return Err(why.at(ticket.output.clone()));
                }
                service.clean(ticket);
                Ok(true)
            }
            State::Failed(why, again) => {
                lost(self)?;
                service.clean(ticket);
                let failed = self.saved.parts[at].failed;
                if !again || failed.is_multiple_of(settings.attempts.max(1)) {
                    return Err(*why);
                }
                progress.repeated += 1;
                std::thread::sleep(Duration::from_secs(1 << failed.min(5)).min(PAUSES[1]));
                Ok(true)
            }
            State::Waiting => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                if now > ticket.expires {
                    lost(self)?;
                    return Err(self
                        .late(service, "a request expired without a result".to_owned())
                        .help("give the same command again to send it again"));
                }
                Ok(false)
            }
        }
    }

    /// Removes the job's folder, once the results are where they belong.
    ///
    /// # Errors
    /// [`Code::OutputUnwritable`].
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(|why| {
            Diagnostic::new(Code::OutputUnwritable, format!("cannot be removed: {why}"))
                .at(self.folder.display().to_string())
        })
    }
}

/// The job file's list of uploads, written whenever it changes.
struct Ids<'a>(RefCell<&'a mut Job>);

impl Uploads for Ids<'_> {
    fn id(&self, location: &str) -> Option<String> {
        self.0.borrow().saved.uploads.get(location).cloned()
    }

    fn keep(&self, location: &str, id: Option<&str>) -> Result<()> {
        let mut job = self.0.borrow_mut();
        match id {
            Some(id) => drop(job.saved.uploads.insert(location.to_owned(), id.to_owned())),
            None => drop(job.saved.uploads.remove(location)),
        }
        job.save()
    }
}

impl Saved {
    fn read(path: &Path) -> std::result::Result<Self, String> {
        let text = fs::read(path).map_err(|why| format!("the job file cannot be read: {why}"))?;
        let saved: Saved = serde_json::from_slice(&text).map_err(|why| format!("the job file is damaged: {why}"))?;
        if saved.version != VERSION {
            return Err(format!("the job file has version {}, this Tacit reads version {VERSION}", saved.version));
        }
        let mut next = 0;
        for part in &saved.parts {
            if part.first_row != next || part.rows == 0 {
                return Err("the job file is damaged: its parts do not follow each other".to_owned());
            }
            next = part.first_row.saturating_add(part.rows);
        }
        if next != saved.rows {
            return Err("the job file is damaged: its parts are not all rows".to_owned());
        }
        Ok(saved)
    }

    fn check(&self, id: &JobId) -> std::result::Result<(), String> {
        let own = [
            ("circuit", &self.circuit, hex(&id.circuit)),
            ("client key", &self.client_key, hex(&id.client_key)),
            ("input", &self.input, hex(&id.input)),
        ];
        match own.iter().find(|(_, saved, given)| *saved != given) {
            Some((what, ..)) => Err(format!("the unfinished job here is of another {what}")),
            None if self.rows != id.rows => {
                Err(format!("the unfinished job here has {} rows, not {}", self.rows, id.rows))
            }
            None => Ok(()),
        }
    }
}
