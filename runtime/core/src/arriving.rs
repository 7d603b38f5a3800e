//! Queries that are prepared while they arrive.
//!
//! A query of megabytes is milliseconds on its way, in which the threads that evaluate would have nothing to do. An
//! [`ArrivingQuery`] divides its rows into pieces of whole selectors, each of which may be prepared as soon as it is there. What
//! was not prepared when its row's turn comes is prepared then.

use crate::circuit::Circuit;
use crate::prepare::{Made, PreparedRow, Row, seed};
use std::mem;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use tacit_ir::artifact::v1::{BatchHeader, SEED_BYTES, query_row_bytes};
use tacit_ir::artifact::{Kind, Outline, Place, RunningChecksum, SectionId, decode};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_torus::masks::MaskStream;

/// Bytes that a piece has at least, if its row has as many: preparing it then takes longer than waking a thread.
const PIECE_BYTES: usize = 64 << 10;

/// A query file of which more and more is there.
#[derive(Debug)]
pub struct ArrivingQuery {
    circuit: Arc<Circuit>,
    /// Rows it should have.
    count: u32,
    /// Bytes of the file.
    length: u64,
    /// What comes before the rows, and its length.
    head: Vec<u8>,
    head_len: usize,
    /// Where the rows lie, once the head was read.
    place: Option<Place>,
    sum: RunningChecksum,
    /// The part that arrives, and its length.
    part: Part,
    bytes: Vec<u8>,
    bytes_len: usize,
    /// The row that arrives.
    masks: MaskStream,
    pieces: Vec<Arc<Piece>>,
    rows: Vec<ArrivedRow>,
}

/// Part of a row.
#[derive(Clone, Debug)]
enum Part {
    Seed,
    Units(Range<usize>),
    Inputs,
}

/// Units of a row, with their bodies or what these were prepared to.
#[derive(Debug)]
pub struct Piece {
    circuit: Arc<Circuit>,
    masks: MaskStream,
    units: Range<usize>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Arrived(Vec<u8>),
    Made(Vec<Made>),
    /// Given to the row.
    Taken,
}

/// A row that has arrived.
#[derive(Debug)]
pub struct ArrivedRow {
    circuit: Arc<Circuit>,
    masks: MaskStream,
    pieces: Vec<Arc<Piece>>,
    inputs: Vec<u8>,
}

impl ArrivingQuery {
    /// A file of `length` bytes with so many rows, of which nothing is there yet.
    ///
    /// # Errors
    ///
    /// [`Code::FileCorrupted`] when so many rows take more bytes.
    pub fn new(circuit: Arc<Circuit>, rows: u32, length: u64) -> Result<Self> {
        let head =
            u64::from(rows).checked_mul(query_row_bytes(circuit.layout())).and_then(|rows| length.checked_sub(rows));
        let head_len = head.and_then(|head| usize::try_from(head).ok()).ok_or_else(cut)?;
        Ok(ArrivingQuery {
            circuit,
            count: rows,
            length,
            head: Vec::new(),
            head_len,
            place: None,
            sum: RunningChecksum::default(),
            part: Part::Seed,
            bytes: Vec::new(),
            bytes_len: SEED_BYTES,
            masks: MaskStream::new([0; SEED_BYTES]),
            pieces: Vec::new(),
            rows: Vec::new(),
        })
    }

    /// Takes the bytes that come next. `ready` gets the pieces of the first row that are complete with them, but for its last
    /// one, which there is no time to prepare ahead.
    ///
    /// # Errors
    ///
    /// Those of [`Query::read`](crate::Query::read) but for the rows' checksum, which [`ArrivingQuery::finish`] checks;
    /// [`Code::EnvelopeInvalid`] when the file has another number of rows; [`Code::ServerBusy`] without memory.
    pub fn push(&mut self, bytes: &[u8], mut ready: impl FnMut(Arc<Piece>)) -> Result<()> {
        let (head, mut rest) = bytes.split_at(bytes.len().min(self.head_len - self.head.len()));
        reserve(&mut self.head, self.head_len)?;
        self.head.extend_from_slice(head);
        if self.head.len() < self.head_len {
            return Ok(());
        }
        if self.place.is_none() {
            self.place = Some(self.read_head()?);
        }
        self.sum.update(rest);
        while !rest.is_empty() {
            if self.rows.len() == self.count as usize {
                return Err(cut());
            }
            reserve(&mut self.bytes, self.bytes_len)?;
            let (now, later) = rest.split_at(rest.len().min(self.bytes_len - self.bytes.len()));
            self.bytes.extend_from_slice(now);
            rest = later;
            while self.bytes.len() == self.bytes_len {
                self.end_part(&mut ready);
            }
        }
        Ok(())
    }

    fn read_head(&self) -> Result<Place> {
        let layout = self.circuit.layout();
        let file = Outline::read(&self.head, &[Kind::Query])?;
        file.check_length(self.length)?;
        file.check_circuit(self.circuit.digest())?;
        let header: BatchHeader = decode(file.place(SectionId::HEADER)?.section(&self.head)?)?;
        if header.rows != self.count {
            let message = format!("the query has {} rows, its request says {}", header.rows, self.count);
            return Err(Diagnostic::new(Code::EnvelopeInvalid, message).help("send a request that `tacit invoke` made"));
        }
        let rows = file.place(SectionId::ROWS)?;
        let section_bytes = rows.bytes.end - rows.bytes.start;
        header.check(layout, query_row_bytes(layout), section_bytes as usize)?;
        if rows.bytes != (self.head_len as u64..self.length) {
            return Err(Diagnostic::new(Code::FileCorrupted, "the query's rows are not its last section"));
        }
        Ok(rows.clone())
    }

    /// Keeps a part that is complete, and begins the next one.
    fn end_part(&mut self, ready: &mut impl FnMut(Arc<Piece>)) {
        let bytes = mem::take(&mut self.bytes);
        let unit = match self.part.clone() {
            Part::Seed => {
                self.masks = MaskStream::new(seed(&bytes));
                0
            }
            Part::Units(units) => {
                let next = units.end;
                let (circuit, state) = (Arc::clone(&self.circuit), Mutex::new(State::Arrived(bytes)));
                let piece = Arc::new(Piece { circuit, masks: self.masks, units, state });
                if self.rows.is_empty() && next < self.circuit.units.len() {
                    ready(Arc::clone(&piece));
                }
                self.pieces.push(piece);
                next
            }
            Part::Inputs => {
                let (circuit, pieces) = (Arc::clone(&self.circuit), mem::take(&mut self.pieces));
                self.rows.push(ArrivedRow { circuit, masks: self.masks, pieces, inputs: bytes });
                (self.part, self.bytes_len) = (Part::Seed, SEED_BYTES);
                return;
            }
        };
        let count = self.circuit.units.len();
        if unit == count {
            (self.part, self.bytes_len) = (Part::Inputs, self.circuit.unit_bytes(count).len());
            return;
        }
        let start = self.circuit.unit_bytes(unit).start;
        let end = (unit..count).find(|unit| self.circuit.unit_bytes(*unit).end - start >= PIECE_BYTES);
        let units = unit..end.map_or(count, |last| last + 1);
        self.bytes_len = self.circuit.unit_bytes(units.end - 1).end - start;
        self.part = Part::Units(units);
    }

    /// The rows, once all bytes are there.
    ///
    /// # Errors
    ///
    /// [`Code::FileCorrupted`] when bytes are missing or were changed.
    pub fn finish(self) -> Result<Vec<ArrivedRow>> {
        let place = self.place.filter(|_| self.rows.len() == self.count as usize).ok_or_else(cut)?;
        self.sum.check(&place)?;
        Ok(self.rows)
    }
}

impl Piece {
    /// Prepares it on the current thread, unless that was done before.
    pub fn prepare(&self) {
        let mut state = self.state();
        if let State::Arrived(bytes) = &*state {
            *state = State::Made(self.row().units_here(&self.unit_bytes(bytes)));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn row(&self) -> Row<'_> {
        Row { circuit: &self.circuit, masks: self.masks }
    }

    /// The units with their bodies.
    fn unit_bytes<'a>(&self, bytes: &'a [u8]) -> Vec<(usize, &'a [u8])> {
        let mut rest = bytes;
        let cut = |unit: usize| {
            let (own, after) = rest.split_at_checked(self.circuit.unit_bytes(unit).len()).unwrap_or((rest, &[]));
            rest = after;
            (unit, own)
        };
        self.units.clone().map(cut).collect()
    }

    /// What there is of it, unless a thread prepares it.
    fn try_take(&self) -> Option<State> {
        match self.state.try_lock() {
            Ok(mut state) => Some(mem::replace(&mut *state, State::Taken)),
            Err(TryLockError::Poisoned(state)) => Some(mem::replace(&mut *state.into_inner(), State::Taken)),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl ArrivedRow {
    /// Its pieces, each of which may be prepared before the row.
    pub fn pieces(&self) -> &[Arc<Piece>] {
        &self.pieces
    }

    /// Prepares what was not prepared yet, in parallel on the current rayon pool; what another thread is preparing it waits
    /// for.
    pub fn prepare(self) -> PreparedRow {
        let row = Row { circuit: &self.circuit, masks: self.masks };
        let states: Vec<Option<State>> = self.pieces.iter().map(|piece| piece.try_take()).collect();
        let arrived = self.pieces.iter().zip(&states).filter_map(|(piece, state)| match state {
            Some(State::Arrived(bytes)) => Some(piece.unit_bytes(bytes)),
            _ => None,
        });
        let mut fresh = row.units(&arrived.flatten().collect::<Vec<_>>()).into_iter();
        let mut made = Vec::with_capacity(self.circuit.units.len());
        for (piece, state) in self.pieces.iter().zip(states) {
            match state {
                Some(State::Arrived(_)) => made.extend(fresh.by_ref().take(piece.units.len())),
                Some(State::Made(units)) => made.extend(units),
                Some(State::Taken) => {}
                None => {
                    piece.prepare();
                    if let State::Made(units) = mem::replace(&mut *piece.state(), State::Taken) {
                        made.extend(units);
                    }
                }
            }
        }
        row.assemble(made, &self.inputs)
    }
}

fn cut() -> Diagnostic {
    Diagnostic::new(Code::FileCorrupted, "the query does not have the bytes that its rows take")
        .help("send a query that `tacit encrypt` made")
}

fn reserve(bytes: &mut Vec<u8>, length: usize) -> Result<()> {
    bytes.try_reserve_exact(length - bytes.len()).map_err(|_| {
        Diagnostic::new(Code::ServerBusy, "there is no memory for the query").help("send the request again later")
    })
}
