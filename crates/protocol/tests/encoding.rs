//! One byte form for every message: golden bytes, round trips, and decoders that survive anything.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use gainsay_commitment::{
    Canonical, ChainingValue, ClaimId, DisputeId, MoveHash, NodeAddress, Opening, PartyId, SecretKey, Signed,
};
use gainsay_program::{
    ArithmeticProfile, Dtype, GenerationRequest, JobField, JobInput, Layer, Manifest, Op, OpKind, OpPlace,
    Operand, Program, Sampling, Scope, StopRules, TensorRef, TensorSpec,
};
use gainsay_protocol::{
    Action, Cause, Choice, Claim, ClaimReceipt, Closing, Dispute, DisputeTerms, Equivocation, Event,
    EvidenceBundle, EvidenceEntry, Job, JobId, LeaseId, Open, Outcome, Record, Reveal, RevealContent,
    RevealKey, Reveals, ServiceTime, SignedMove, Verdict, VoidStatement, Witness, WitnessRun,
    strategy::first_difference,
    toy::{Credentials, Fault, GameOptions, HonestChallenger, HonestWorker, Player, Random, play, zoo},
};

const TERMS: DisputeTerms = DisputeTerms {
    window_closes: ServiceTime(0x1122_3344),
    worker_allowance_ms: 300_000,
    challenger_allowance_ms: 200_000,
};

fn hash<T: From<[u8; 32]>>(byte: u8) -> T {
    T::from([byte; 32])
}

fn job() -> Job {
    Job::embedding(hash(0x10), JobInput::new([vec![1, 2, 3], vec![0xffff_fffe]]).unwrap())
}

fn claim() -> Claim {
    Claim {
        coordinator: hash(0x20),
        job: JobId([0x21; 16]),
        lease: LeaseId([0x22; 16]),
        model: hash(0x10),
        arithmetic: ArithmeticProfile::ExactInt8V1,
        input: hash(0x23),
        output: vec![0, 0, 0x80, 0x7f],
        layers: vec![hash(0x24), hash(0x25)],
        trace: hash(0x26),
        worker: hash(0x27),
    }
}

fn open() -> Open {
    Open { claim: hash(0x30), challenger: hash(0x31), layer: 7, commitment: hash(0x32) }
}

fn reveal(content: RevealContent) -> Reveal {
    let scope = Scope::Virtual { op: 4, element: 1 << 40 };
    Reveal { claim: hash(0x30), layer: 7, scope, content }
}

fn generation() -> Job {
    let sampling = Sampling { temperature: 0.5, logit_bias: vec![(4, 1.0)], seed: 7, ..Sampling::default() };
    let stop = StopRules { max_tokens: 9, stop: vec![b"end".to_vec()], ignore_eos: true };
    Job::generation(hash(0x10), GenerationRequest { prompt: vec![1, 2, 3], sampling, stop })
}

fn reveals() -> [Reveal; 3] {
    let node = NodeAddress { height: 9, index: 3 };
    [
        reveal(RevealContent::Ops { commitments: vec![hash(0x40), hash(0x41)] }),
        reveal(RevealContent::Nodes { op: 2, node, children: vec![hash(0x42)] }),
        reveal(RevealContent::Chunk { op: 2, chunk: 5, bytes: vec![1, 2, 3, 4] }),
    ]
}

fn witness() -> Witness {
    let place = OpPlace { layer: 7, scope: Scope::Layer, op: 1 };
    let chunk = |tensor, chunk| {
        let path: Vec<ChainingValue> = vec![hash(0x50)];
        WitnessRun { tensor, opening: Opening { chunk, bytes: vec![9, 8], path } }
    };
    Witness::new(vec![
        chunk(TensorRef::Op(place), 2),
        chunk(TensorRef::LayerOutput(6), 0),
        chunk(TensorRef::Weight(3), 1),
        chunk(TensorRef::Weight(3), 3),
    ])
    .unwrap()
}

fn choices() -> [Choice; 4] {
    [
        Action::ChooseOp { op: 3 },
        Action::ChooseNode { child: 63 },
        Action::ChooseElement { element: 1 << 33 },
        Action::Prove { element: 77, witness: witness() },
    ]
    .map(|action| Choice { dispute: hash(0x60), seq: 12, previous: hash(0x61), action })
}

fn records() -> [Record; 6] {
    [
        Event::Opened { digest: [0x70; 32], terms: TERMS },
        Event::Moved { digest: [0x71; 32] },
        Event::Paused,
        Event::Resumed,
        Event::Expired,
        Event::Closed(Closing::ClaimRejected { by: Some(hash(0x72)) }),
    ]
    .map(|event| Record {
        dispute: hash(0x60),
        seq: 1,
        previous: hash(0x61),
        time: ServiceTime(-5),
        event,
    })
}

fn keys() -> [RevealKey; 3] {
    reveals().map(|reveal| reveal.key())
}

/// A manifest that encodes, though it is no valid model: its bytes do not depend on any lowering.
fn manifest() -> Manifest {
    let inputs = vec![Operand::Job(JobField::Ids), Operand::Weight(0)];
    Manifest {
        name: "golden".to_owned(),
        arithmetic: ArithmeticProfile::ExactF32V1,
        tokenizer: hash(0x80),
        vocabulary: 100,
        max_sequence: 16,
        expand_from_rows: 8,
        blocks_per_layer: 1,
        generation: None,
        tensors: vec![TensorSpec {
            name: "table".to_owned(),
            dtype: Dtype::F32,
            rows: 100,
            width: 4,
            commitment: hash(0x81),
        }],
        program: Program { layers: vec![Layer { ops: vec![Op { kind: OpKind::Gather, inputs }] }] },
    }
}

fn key() -> SecretKey {
    SecretKey::from_bytes(&[0x42; 32])
}

fn bundle() -> EvidenceBundle {
    let key = key();
    let receipt = ClaimReceipt { claim: claim().id(), time: ServiceTime(5), terms: TERMS };
    let entry = |record, signed_move| EvidenceEntry { record: Signed::sign(record, &key), signed_move };
    let prove = SignedMove::Choice(Signed::sign(choices()[3].clone(), &key));
    let cause = Cause::Proof {
        place: OpPlace { layer: 7, scope: Scope::Virtual { op: 4, element: 9 }, op: 1 },
        element: 77,
        claimed: [1, 2, 3, 4],
        recomputed: [1, 2, 3, 5],
    };
    EvidenceBundle {
        manifest: manifest(),
        job: job(),
        claim: Signed::sign(claim(), &key),
        receipt: Signed::sign(receipt, &key),
        log: vec![
            entry(records()[0], Some(SignedMove::Open(Signed::sign(open(), &key)))),
            entry(records()[2], None),
            entry(records()[1], Some(prove)),
        ],
        outcome: Outcome { verdict: Verdict::ChallengerWins, cause, time: ServiceTime(99) },
    }
}

fn equivocation() -> Equivocation {
    let other = Claim { output: vec![1, 2, 3, 4], ..claim() };
    Equivocation::new(Signed::sign(claim(), &key()), Signed::sign(other, &key()))
}

/// Disputes in every phase, from real games.
fn disputes() -> Vec<Dispute> {
    let fixture =
        zoo::wide().build(Fault::Flip { place: OpPlace::in_layer(1, 3), element: 39 * 64, bit: 30 }, 4);
    let layer = first_difference(fixture.claim(), &fixture.honest().layers()).unwrap().unwrap();
    let own = fixture.honest().layers()[layer as usize];
    let challenger = Credentials::Name(PartyId::from_bytes([9; 32]));
    let worker = Credentials::Name(fixture.claim().worker);
    let mut other = HonestChallenger { credentials: challenger.clone(), trace: fixture.honest().clone() };
    let mut states = Recorder {
        states: Vec::new(),
        worker: HonestWorker { credentials: worker, trace: fixture.claimed().clone() },
    };
    let mut spy = Spy { states: Vec::new(), inner: &mut other };
    let players = (&mut states as &mut dyn Player, &mut spy as &mut dyn Player);
    let options = GameOptions::default();
    let game =
        play(&fixture, layer, own, &challenger, players, &mut Reveals::new(), &options, &mut Random::new(1));
    let mut all = states.states;
    all.extend(spy.states);
    all.push(game.unwrap().dispute);
    all
}

struct Recorder {
    states: Vec<Dispute>,
    worker: HonestWorker<gainsay_protocol::toy::ToyRun>,
}

impl Player for Recorder {
    fn play(
        &mut self,
        dispute: &Dispute,
        case: &gainsay_protocol::Case<'_>,
        random: &mut Random,
    ) -> gainsay_protocol::toy::Play {
        self.states.push(dispute.clone());
        self.worker.play(dispute, case, random)
    }
}

struct Spy<'a> {
    states: Vec<Dispute>,
    inner: &'a mut dyn Player,
}

impl Player for Spy<'_> {
    fn play(
        &mut self,
        dispute: &Dispute,
        case: &gainsay_protocol::Case<'_>,
        random: &mut Random,
    ) -> gainsay_protocol::toy::Play {
        self.states.push(dispute.clone());
        self.inner.play(dispute, case, random)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn void() -> VoidStatement {
    let (coordinator, reason) = (hash(7), "a fault in ⌊·⌋".to_owned());
    VoidStatement { coordinator, arithmetic: ArithmeticProfile::ExactInt8V1, reason, time: ServiceTime(8) }
}

/// Name, digest and length of the encoding of every kind of message.
fn golden() -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>, digest: [u8; 32]| {
        lines.push(format!("{name} {} {}", bytes.len(), hex(&digest)));
    };
    add("job", job().to_bytes(), job().digest());
    add("generation", generation().to_bytes(), generation().digest());
    add("claim", claim().to_bytes(), claim().digest());
    add("open", open().to_bytes(), open().digest());
    for (name, reveal) in ["reveal_ops", "reveal_nodes", "reveal_chunk"].iter().zip(reveals()) {
        add(name, reveal.to_bytes(), reveal.digest());
        add("reveal_key", reveal.key().to_bytes(), reveal.key().digest());
    }
    for (name, choice) in ["choose_op", "choose_node", "choose_element", "prove"].iter().zip(choices()) {
        add(name, choice.to_bytes(), choice.digest());
    }
    for (name, record) in ["opened", "moved", "paused", "resumed", "expired", "closed"].iter().zip(records())
    {
        add(name, record.to_bytes(), record.digest());
    }
    let receipt = ClaimReceipt { claim: hash(1), time: ServiceTime(5), terms: TERMS };
    add("claim_receipt", receipt.to_bytes(), receipt.digest());
    add("void", void().to_bytes(), void().digest());
    add("equivocation", equivocation().to_bytes(), equivocation().digest());
    add("evidence_bundle", bundle().to_bytes(), bundle().digest());
    lines
}

#[test]
fn encodings_and_digests_are_the_committed_ones() {
    let committed = include_str!("golden/messages.txt");
    let found = golden().join("\n") + "\n";
    assert_eq!(found, committed, "bytes that parties sign have changed");
}

#[test]
fn the_bytes_of_a_claim_and_of_an_opening_are_spelled_out() {
    let claim_hex = include_str!("golden/claim.hex").trim();
    assert_eq!(hex(&claim().to_bytes()), claim_hex);
    let spelled = ["01", &"30".repeat(32), &"31".repeat(32), "07000000", &"32".repeat(32)].concat();
    assert_eq!(hex(&open().to_bytes()), spelled);
    assert_eq!(DisputeId::from_bytes(open().digest()), open().id());
    assert_eq!(ClaimId::from_bytes(claim().digest()), claim().id());
    assert_eq!(MoveHash::from_bytes(records()[0].digest()), records()[0].hash());
}

/// Decodes mutated encodings: whatever decodes at all must encode to exactly the bytes it came from.
fn survives<T: Canonical + std::fmt::Debug + PartialEq>(value: &T, random: &mut Random) {
    let bytes = value.to_bytes();
    assert_eq!(T::from_bytes(&bytes).as_ref(), Ok(value));
    for length in 0..bytes.len().min(300) {
        assert!(T::from_bytes(&bytes[..length]).is_err(), "a prefix of {length} bytes decodes");
    }
    assert!(T::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err(), "a trailing byte is accepted");
    for _ in 0..400 {
        let mut mutated = bytes.clone();
        for _ in 0..=random.below(3) {
            let index = random.below(mutated.len() as u64) as usize;
            mutated[index] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff, mutated[index] ^ 1]);
        }
        if let Ok(decoded) = T::from_bytes(&mutated) {
            assert_eq!(decoded.to_bytes(), mutated, "two encodings of one value");
        }
    }
}

#[test]
fn decoders_are_strict_and_survive_mutations() {
    let mut random = Random::new(11);
    survives(&job(), &mut random);
    survives(&generation(), &mut random);
    survives(&claim(), &mut random);
    survives(&open(), &mut random);
    reveals().iter().for_each(|reveal| survives(reveal, &mut random));
    keys().iter().for_each(|key| survives(key, &mut random));
    choices().iter().for_each(|choice| survives(choice, &mut random));
    records().iter().for_each(|record| survives(record, &mut random));
    survives(&equivocation(), &mut random);
    survives(&void(), &mut random);
    survives(&bundle(), &mut random);
    for dispute in disputes() {
        survives(&dispute, &mut random);
    }
}

#[test]
fn a_mutated_dispute_state_never_makes_the_rules_panic() {
    let fixture =
        zoo::wide().build(Fault::Flip { place: OpPlace::in_layer(1, 3), element: 39 * 64, bit: 30 }, 4);
    let case = fixture.case();
    let mut random = Random::new(12);
    let mut decoded = 0;
    for dispute in disputes() {
        let bytes = dispute.to_bytes();
        for _ in 0..2_000 {
            let mut mutated = bytes.clone();
            let index = 32 + random.below(mutated.len() as u64 - 32) as usize;
            mutated[index] = random.draw() as u8;
            let Ok(mut state) = Dispute::from_bytes(&mutated) else { continue };
            decoded += 1;
            let worker = HonestWorker {
                credentials: Credentials::Name(state.worker()),
                trace: fixture.claimed().clone(),
            }
            .play(&state, &case, &mut random);
            let challenger = HonestChallenger {
                credentials: Credentials::Name(state.challenger()),
                trace: fixture.honest().clone(),
            }
            .play(&state, &case, &mut random);
            for play in [worker, challenger] {
                if let gainsay_protocol::toy::Play::Move(made, _) = play {
                    let made = gainsay_protocol::Authentic::trusted(*made);
                    let _ = state.apply(&case, &mut Reveals::new(), &made, ServiceTime(2_000));
                }
            }
            let _ = (state.timeout(ServiceTime(i64::MAX)), state.effects(), state.position());
        }
    }
    assert!(decoded > 1_000, "only {decoded} mutations decoded");
}

#[test]
fn signed_moves_round_trip_and_unknown_tags_are_refused() {
    let key = key();
    let moves = [
        SignedMove::Open(Signed::sign(open(), &key)),
        SignedMove::Reveal(Signed::sign(reveals()[0].clone(), &key)),
        SignedMove::Choice(Signed::sign(choices()[3].clone(), &key)),
    ];
    for made in moves {
        let mut bytes = made.to_bytes();
        assert_eq!(SignedMove::from_bytes(&bytes).as_ref(), Ok(&made));
        assert!(made.authenticate().is_ok());
        bytes[0] = 9;
        assert!(SignedMove::from_bytes(&bytes).is_err());
    }
    assert!(SignedMove::from_bytes(&[]).is_err());
    let forged = Signed { signature: [1; 64].into(), ..Signed::sign(open(), &key) };
    assert!(SignedMove::Open(forged).authenticate().is_err());
}

#[test]
fn a_witness_out_of_order_twice_or_too_large_is_none() {
    let chunks = witness().runs().to_vec();
    let reversed: Vec<_> = chunks.iter().rev().cloned().collect();
    assert!(Witness::new(reversed).is_err());
    assert!(Witness::new(vec![chunks[0].clone(), chunks[0].clone()]).is_err());
    let mut touching = chunks.clone();
    touching[3].opening.chunk = 2;
    assert!(Witness::new(touching).is_err(), "what touches is opened together");
    let huge = (0..5_000).map(|index| {
        let opening = Opening { chunk: 2 * index, bytes: vec![0; 1024], path: Vec::new() };
        WitnessRun { tensor: TensorRef::Weight(0), opening }
    });
    assert!(Witness::new(huge.collect()).is_err(), "five megabytes are more than any element needs");
}
