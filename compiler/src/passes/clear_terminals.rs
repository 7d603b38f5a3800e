//! `clear-terminals`: a choice between two clear constants is a product by a scalar.
//!
//! `v0 + (v1 - v0) * bit` takes the bit's GLWE encryption from the last body row of its GGSW, so it needs no external
//! product. With a thermometer ciphertext `use-thermometer` has freed such choices before; without one this pass does.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::each_diagram};
use tacit_ir::diag::Result;
use tacit_ir::diagram::{Atom, Form, Node};

pub(super) static INFO: PassInfo = PassInfo {
    name: "clear-terminals",
    summary: "replace choices between constants by products with a scalar",
    from: &[StageName::Circuit],
    to: None,
};

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    each_diagram(ir, cx, |diagram, cx| {
        let mut replaced = 0;
        let diagram = diagram.rebuild(|builder, _, node| match node {
            Node::Mux { feature, bit, low, high } if low.is_constant() && high.is_constant() => {
                replaced += 1;
                scalar(feature, bit, low, &high)
            }
            other => builder.add(other),
        });
        cx.count("choices between constants", replaced);
        Ok(diagram)
    })
}

fn scalar(feature: u32, bit: u32, low: Form, high: &Form) -> Form {
    let difference = high.minus(&low);
    let mut out = low;
    for (slot, value) in difference.constants() {
        out.add_atom(Atom::Bit { feature, bit }, slot, value);
    }
    out
}
