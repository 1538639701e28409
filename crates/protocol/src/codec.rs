//! Encodings of program addresses and small enums inside the messages of this crate.

use gainsay_commitment::{DecodeError, Decoder, Encoder};
use gainsay_program::{ArithmeticProfile, OpPlace, Scope, TensorRef};

use crate::{
    ids::{JobId, LeaseId},
    time::ServiceTime,
};

pub(crate) fn put_scope(e: &mut Encoder, scope: Scope) {
    match scope {
        Scope::Layer => {
            e.u8(0);
        }
        Scope::Virtual { op, element } => {
            e.u8(1).u32(op).u64(element);
        }
    }
}

pub(crate) fn get_scope(d: &mut Decoder<'_>) -> Result<Scope, DecodeError> {
    match d.u8()? {
        0 => Ok(Scope::Layer),
        1 => Ok(Scope::Virtual { op: d.u32()?, element: d.u64()? }),
        tag => Err(DecodeError::UnknownTag { what: "scope", tag }),
    }
}

pub(crate) fn put_place(e: &mut Encoder, place: OpPlace) {
    e.u32(place.layer);
    put_scope(e, place.scope);
    e.u32(place.op);
}

pub(crate) fn get_place(d: &mut Decoder<'_>) -> Result<OpPlace, DecodeError> {
    Ok(OpPlace { layer: d.u32()?, scope: get_scope(d)?, op: d.u32()? })
}

pub(crate) fn put_tensor(e: &mut Encoder, tensor: TensorRef) {
    match tensor {
        TensorRef::Op(place) => {
            e.u8(0);
            put_place(e, place);
        }
        TensorRef::LayerOutput(layer) => {
            e.u8(1).u32(layer);
        }
        TensorRef::Weight(index) => {
            e.u8(2).u32(index);
        }
    }
}

pub(crate) fn get_tensor(d: &mut Decoder<'_>) -> Result<TensorRef, DecodeError> {
    match d.u8()? {
        0 => get_place(d).map(TensorRef::Op),
        1 => d.u32().map(TensorRef::LayerOutput),
        2 => d.u32().map(TensorRef::Weight),
        tag => Err(DecodeError::UnknownTag { what: "tensor", tag }),
    }
}

pub(crate) fn put_arithmetic(e: &mut Encoder, profile: ArithmeticProfile) {
    e.u8(match profile {
        ArithmeticProfile::ExactF32V1 => 1,
        ArithmeticProfile::ExactInt8V1 => 2,
    });
}

pub(crate) fn get_arithmetic(d: &mut Decoder<'_>) -> Result<ArithmeticProfile, DecodeError> {
    match d.u8()? {
        1 => Ok(ArithmeticProfile::ExactF32V1),
        2 => Ok(ArithmeticProfile::ExactInt8V1),
        tag => Err(DecodeError::UnknownTag { what: "arithmetic profile", tag }),
    }
}

pub(crate) fn put_time(e: &mut Encoder, time: ServiceTime) {
    e.i64(time.0);
}

pub(crate) fn get_time(d: &mut Decoder<'_>) -> Result<ServiceTime, DecodeError> {
    d.i64().map(ServiceTime)
}

pub(crate) fn get_job_id(d: &mut Decoder<'_>) -> Result<JobId, DecodeError> {
    d.array().map(JobId)
}

pub(crate) fn get_lease_id(d: &mut Decoder<'_>) -> Result<LeaseId, DecodeError> {
    d.array().map(LeaseId)
}
