//! Query files in, result files out.

use crate::circuit::Circuit;
use crate::evaluate::Ciphertexts;
use tacit_ir::artifact::v1::{BatchHeader, query_row_bytes, result_row_bytes};
use tacit_ir::artifact::{Container, Kind, SectionId, View, decode, encode};
use tacit_ir::diag::Result;
use tacit_torus::bits;

/// A query that was read and checked; its rows borrow from the file.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    rows: &'a [u8],
    row_bytes: usize,
}

impl<'a> Query<'a> {
    /// Reads a query file for this circuit, of at most [`Kind::default_limit`] bytes.
    ///
    /// # Errors
    ///
    /// Those of [`View::read`], `OtherCircuit`, and `NotConformant` when it was made under other parameters or its
    /// length is wrong.
    pub fn read(circuit: &Circuit, bytes: &'a [u8]) -> Result<Self> {
        let file = View::read(bytes, &[Kind::Query], Kind::Query.default_limit())?;
        file.check_circuit(circuit.digest())?;
        let header: BatchHeader = decode(file.section(SectionId::HEADER)?)?;
        let rows = file.section(SectionId::ROWS)?;
        let row_bytes = query_row_bytes(circuit.layout());
        header.check(circuit.layout(), row_bytes, rows.len())?;
        Ok(Query { rows, row_bytes: row_bytes as usize })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len() / self.row_bytes
    }

    /// Never true of a query that was read: files have at least one row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows, each a seed and the packed bodies.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        self.rows.chunks_exact(self.row_bytes)
    }
}

/// Collects the results of rows into a file.
#[derive(Debug)]
pub struct ResultWriter<'a> {
    circuit: &'a Circuit,
    rows: u32,
    bytes: Vec<u8>,
}

impl<'a> ResultWriter<'a> {
    /// For about `rows` rows.
    pub fn new(circuit: &'a Circuit, rows: usize) -> Self {
        let bytes = Vec::with_capacity(rows * result_row_bytes(circuit.layout()) as usize);
        ResultWriter { circuit, rows: 0, bytes }
    }

    /// Adds a row: of each ciphertext the masks and the bodies of its output coefficients alone, rounded to
    /// `result_bits`. The other coefficients never leave the server.
    pub fn push(&mut self, ciphertexts: &Ciphertexts) {
        let layout = self.circuit.layout();
        let masks = layout.glwe.lwe_dimension() as usize;
        for (ciphertext, slots) in ciphertexts.iter().zip(&layout.result_slots) {
            bits::pack(&ciphertext[..masks + *slots as usize], layout.result_bits, &mut self.bytes);
        }
        for vector in ciphertexts.lwe() {
            let words: Vec<u64> = vector.iter().map(|word| u64::from(*word) << 32).collect();
            bits::pack(&words, layout.result_bits, &mut self.bytes);
        }
        self.rows += 1;
    }

    /// The bytes of the rows so far, as the file's section will hold them.
    pub fn rows(&self) -> &[u8] {
        &self.bytes
    }

    /// The result file.
    ///
    /// # Errors
    ///
    /// An internal error when the header cannot be encoded.
    pub fn finish(self) -> Result<Vec<u8>> {
        let header = BatchHeader { rows: self.rows, layout: self.circuit.layout().clone() };
        let sections = vec![(SectionId::HEADER, encode(&header)?), (SectionId::ROWS, self.bytes)];
        Ok(Container { kind: Kind::Result, digest: *self.circuit.digest(), sections }.write())
    }
}
