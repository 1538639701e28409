//! What makes a program a language model, and what must hold of one.
//!
//! A language model draws the tokens of an answer in its last op and does nothing over whole sequences: then a party may
//! compute it token by token, keeping keys and values, and gets the bits that one run over all tokens gives.

use crate::limits::MAX_STOP_IDS;
use crate::shapes::OutputType;
use crate::{Dtype, GenerationSpec, KvDtype, Layer, Manifest, ManifestError, OpKind, Operand, RowSpace};

/// Checks that the program ends as its kind does, and holds no op of the other kind.
pub(crate) fn check_generation(
    manifest: &Manifest,
    outputs: &[Vec<OutputType>],
) -> Result<(), ManifestError> {
    let Some(last) = outputs.last().and_then(|layer| layer.last()) else {
        return Err(ManifestError::Output);
    };
    let (space, dtype) = match &manifest.generation {
        Some(_) => (RowSpace::Answer, Dtype::U32),
        None => (RowSpace::Sequences, Dtype::F32),
    };
    if (last.space, last.dtype) != (space, dtype) {
        return Err(ManifestError::Output);
    }
    if let Some(generation) = &manifest.generation {
        check_stop_ids(manifest, generation)?;
        generation.defaults.check().map_err(ManifestError::Defaults)?;
    }
    let layers = &manifest.program.layers;
    for (layer_index, layer) in layers.iter().enumerate() {
        let is_last_layer = layer_index + 1 == layers.len();
        for op_index in 0..layer.ops.len() {
            let is_last = is_last_layer && op_index + 1 == layer.ops.len();
            let reason = match &manifest.generation {
                None => misplaced_in_encoder(layer, op_index),
                Some(generation) => misplaced_in_generator(generation, layer, op_index, is_last),
            };
            if let Some(reason) = reason {
                return Err(ManifestError::Misplaced {
                    layer: layer_index as u32,
                    op: op_index as u32,
                    reason,
                });
            }
        }
    }
    Ok(())
}

fn check_stop_ids(manifest: &Manifest, generation: &GenerationSpec) -> Result<(), ManifestError> {
    let ids = &generation.stop_ids;
    let ascend = ids.windows(2).all(|pair| pair[0] < pair[1]);
    let known = ids.iter().all(|&id| id < manifest.vocabulary);
    if ascend && known && ids.len() <= MAX_STOP_IDS { Ok(()) } else { Err(ManifestError::StopIds) }
}

fn misplaced_in_encoder(layer: &Layer, op: usize) -> Option<&'static str> {
    match layer.ops[op].kind {
        OpKind::SelectRows | OpKind::Penalize | OpKind::Sample => Some("an encoder has no answer to draw"),
        _ => None,
    }
}

fn misplaced_in_generator(
    generation: &GenerationSpec,
    layer: &Layer,
    op: usize,
    is_last: bool,
) -> Option<&'static str> {
    match layer.ops[op].kind {
        OpKind::MeanPool => Some("a language model pools no sequences"),
        OpKind::Attention { causal: false, .. } => Some("a language model attends to earlier tokens only"),
        OpKind::Attention { .. } if generation.kv_dtype == KvDtype::Bf16 && !rounds_keys(layer, op) => {
            Some("its keys and values are not rounded to bf16, as the manifest says")
        }
        OpKind::Sample if !is_last => Some("tokens are drawn by the last op alone"),
        _ => None,
    }
}

/// Whether the keys and values that an attention reads come straight from casts.
fn rounds_keys(layer: &Layer, op: usize) -> bool {
    let is_cast = |operand: &Operand| match *operand {
        Operand::Op(index) => layer.ops.get(index as usize).is_some_and(|op| op.kind == OpKind::CastBf16),
        _ => false,
    };
    layer.ops[op].inputs.get(1..3).is_some_and(|keys| keys.iter().all(is_cast))
}
