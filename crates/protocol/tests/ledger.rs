//! Money moves and is never made, whatever the amounts.

use gainsay_commitment::{ClaimId, DisputeId, PartyId};
use gainsay_protocol::{
    Amount, JobId, Open, OwnerId, PPM, Parameters,
    ledger::{
        self, Account, Book, ConvictionPayout, Forfeit, Grounds, Hold, LedgerError, Opening, Refund,
        Settlement, Transaction,
    },
    toy::{Fault, zoo},
};
use proptest::prelude::*;

const SUBMITTER: OwnerId = OwnerId([1; 16]);
const WORKER: OwnerId = OwnerId([2; 16]);
const CHALLENGER: OwnerId = OwnerId([3; 16]);
const JOB: JobId = JobId([4; 16]);
const CLAIM: ClaimId = ClaimId::from_bytes([5; 32]);
const DISPUTE: DisputeId = DisputeId::from_bytes([6; 32]);

fn sum(transaction: &Transaction) -> i128 {
    transaction.postings().iter().map(|posting| i128::from(posting.amount.0)).sum()
}

/// What an account gains.
fn gain(transaction: &Transaction, account: Account) -> i64 {
    transaction
        .postings()
        .iter()
        .find(|posting| posting.account == account)
        .map_or(0, |posting| posting.amount.0)
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![Just(0), 0..100i64, 0..=Amount::MAX.0, Just(Amount::MAX.0)].prop_map(Amount)
}

fn parameters() -> impl Strategy<Value = Parameters> {
    let fractions = (0..=PPM, 0..=PPM, 0..=PPM, 0..=PPM, 0..=PPM);
    (fractions, amount(), amount()).prop_map(|((fee, treasury, submitter, cap, forfeit), refund, lost)| {
        let submitter = submitter.min(PPM - treasury);
        Parameters {
            fee_ppm: fee,
            slash_to_treasury_ppm: treasury,
            slash_to_submitter_ppm: submitter,
            opener_refund_cap_ppm: cap.min(PPM - treasury - submitter),
            opener_refund: refund,
            forfeit_to_worker_ppm: forfeit,
            lost_lease_fee: lost,
            stake_per_job: Amount::MAX,
            ..Parameters::default()
        }
    })
}

proptest! {
    #[test]
    fn a_whole_life_conserves_money_and_leaves_nothing_behind(
        p in parameters(), price in amount(), paid_ppm in 0..=PPM, stake in amount(), openers in 0..5u8,
    ) {
        prop_assert_eq!(p.validate(), Ok(()));
        let (stake, bond) = (stake.max(p.lost_lease_fee), stake);
        let actual = price.share(paid_ppm);
        let openers: Vec<_> = (0..openers).map(|i| OwnerId([100 + i; 16])).collect();
        let settlement =
            Settlement { job: JOB, submitter: SUBMITTER, worker: WORKER, escrowed: price, price: actual, stake };
        let payout = ConvictionPayout {
            claim: CLAIM, stake, submitter: SUBMITTER, grounds: Grounds::Proof { prover: CHALLENGER }, confirmed_openers: &openers,
        };
        let delivered = Some((WORKER, actual));
        let refund = Refund { job: JOB, submitter: SUBMITTER, escrowed: price, delivered };
        let life = [
            ledger::deposit(SUBMITTER, price).unwrap(),
            ledger::deposit(WORKER, stake).unwrap(),
            ledger::deposit(CHALLENGER, bond).unwrap(),
            ledger::submit(JOB, SUBMITTER, price).unwrap(),
            ledger::lock_stake(WORKER, stake).unwrap(),
            ledger::unlock_stake(WORKER, stake).unwrap(),
            ledger::lock_stake(WORKER, stake).unwrap(),
            ledger::convict(CLAIM, WORKER, stake).unwrap(),
            ledger::void_conviction(CLAIM, WORKER, stake).unwrap(),
            ledger::lock_stake(WORKER, stake).unwrap(),
            ledger::lock_bond(CHALLENGER, bond).unwrap(),
            ledger::return_bond(CHALLENGER, bond).unwrap(),
            ledger::lock_bond(CHALLENGER, bond).unwrap(),
            ledger::forfeit_bond(DISPUTE, CHALLENGER, bond).unwrap(),
            ledger::void_forfeit(DISPUTE, CHALLENGER, bond).unwrap(),
            ledger::lock_bond(CHALLENGER, bond).unwrap(),
            ledger::forfeit_bond(DISPUTE, CHALLENGER, bond).unwrap(),
            ledger::pay_forfeit(&Forfeit { dispute: DISPUTE, bond, worker: WORKER }, &p).unwrap(),
            ledger::finalize(&settlement, &p).unwrap(),
            ledger::deposit(WORKER, stake).unwrap(),
            ledger::lock_stake(WORKER, stake).unwrap(),
            ledger::convict(CLAIM, WORKER, stake).unwrap(),
            ledger::pay_conviction(&payout, &p).unwrap(),
            ledger::deposit(WORKER, stake).unwrap(),
            ledger::lock_stake(WORKER, stake).unwrap(),
            ledger::lose_lease(WORKER, stake, p.lost_lease_fee).unwrap(),
            ledger::deposit(SUBMITTER, price).unwrap(),
            ledger::submit(JOB, SUBMITTER, price).unwrap(),
            ledger::refund(&refund, &p).unwrap(),
        ];
        let mut book = Book::new();
        for transaction in &life {
            prop_assert_eq!(sum(transaction), 0);
            book.post(transaction).unwrap();
            prop_assert_eq!(book.total(), 0);
        }
        for (account, balance) in book.iter() {
            match account {
                Account::Locked(_) | Account::Escrow(_) | Account::Held(_) => {
                    prop_assert_eq!(balance, Amount::ZERO, "{:?} keeps money for ever", account);
                }
                Account::Outside => prop_assert!(balance <= Amount::ZERO),
                Account::Free(_) | Account::Treasury => prop_assert!(balance >= Amount::ZERO),
            }
        }
    }

    #[test]
    fn a_conviction_pays_the_fixed_fractions_first_and_refunds_within_their_cap(
        p in parameters(), stake in amount(), openers in 0..5u8,
    ) {
        let openers: Vec<_> = (0..openers).map(|i| OwnerId([100 + i; 16])).collect();
        let payout = ConvictionPayout {
            claim: CLAIM, stake, submitter: SUBMITTER, grounds: Grounds::Proof { prover: CHALLENGER }, confirmed_openers: &openers,
        };
        let paid = ledger::pay_conviction(&payout, &p).unwrap();
        prop_assert_eq!(gain(&paid, Account::Held(Hold::Stake(CLAIM))), -stake.0);
        prop_assert_eq!(gain(&paid, Account::Treasury), stake.share(p.slash_to_treasury_ppm).0);
        prop_assert_eq!(gain(&paid, Account::Free(SUBMITTER)), stake.share(p.slash_to_submitter_ppm).0);
        let refunds: i64 = openers.iter().map(|opener| gain(&paid, Account::Free(*opener))).sum();
        prop_assert!(refunds <= stake.share(p.opener_refund_cap_ppm).0);
        for opener in &openers {
            prop_assert!(gain(&paid, Account::Free(*opener)) <= p.opener_refund.0);
        }
    }

    #[test]
    fn no_amounts_make_a_rule_panic(a: i64, b: i64, c: i64, fee: u32, cut: u32) {
        let p = Parameters {
            fee_ppm: fee, slash_to_treasury_ppm: cut, lost_lease_fee: Amount(c), opener_refund: Amount(b),
            forfeit_to_worker_ppm: fee, opener_refund_cap_ppm: cut, ..Parameters::default()
        };
        let [a, b, c] = [a, b, c].map(Amount);
        let settlement =
            Settlement { job: JOB, submitter: SUBMITTER, worker: WORKER, escrowed: a, price: b, stake: c };
        let openers = [WORKER, SUBMITTER];
        let payout = ConvictionPayout {
            claim: CLAIM, stake: a, submitter: SUBMITTER, grounds: Grounds::Proof { prover: CHALLENGER }, confirmed_openers: &openers,
        };
        let refund = Refund { job: JOB, submitter: SUBMITTER, escrowed: a, delivered: Some((WORKER, b)) };
        let results = [
            ledger::deposit(SUBMITTER, a), ledger::withdraw(SUBMITTER, a), ledger::finalize(&settlement, &p),
            ledger::pay_conviction(&payout, &p), ledger::refund(&refund, &p), ledger::lose_lease(WORKER, a, p.lost_lease_fee),
            ledger::pay_forfeit(&Forfeit { dispute: DISPUTE, bond: a, worker: WORKER }, &p),
        ];
        for transaction in results.into_iter().flatten() {
            prop_assert_eq!(sum(&transaction), 0);
        }
    }
}

#[test]
fn a_finished_job_is_paid_as_the_table_says() {
    let parameters = Parameters { fee_ppm: 100_000, ..Parameters::default() };
    let settlement = Settlement {
        job: JOB,
        submitter: SUBMITTER,
        worker: WORKER,
        escrowed: Amount(1_000),
        price: Amount(605),
        stake: Amount(40),
    };
    let paid = ledger::finalize(&settlement, &parameters).unwrap();
    assert_eq!(gain(&paid, Account::Escrow(JOB)), -1_000);
    assert_eq!(gain(&paid, Account::Treasury), 60);
    assert_eq!(gain(&paid, Account::Free(WORKER)), 545 + 40);
    assert_eq!(gain(&paid, Account::Locked(WORKER)), -40);
    assert_eq!(gain(&paid, Account::Free(SUBMITTER)), 395);
    let too_dear = Settlement { price: Amount(1_001), ..settlement };
    let exceeds = LedgerError::Exceeds { part: "price", whole: "escrow" };
    assert_eq!(ledger::finalize(&too_dear, &parameters), Err(exceeds));
}

#[test]
fn nobody_spends_what_is_not_there() {
    let mut book = Book::new();
    book.post(&ledger::deposit(WORKER, Amount(100)).unwrap()).unwrap();
    book.post(&ledger::lock_stake(WORKER, Amount(60)).unwrap()).unwrap();
    let before = book.clone();
    let refused = book.post(&ledger::withdraw(WORKER, Amount(41)).unwrap()).unwrap_err();
    assert_eq!((refused.balance, refused.wanted), (Amount(40), Amount(41)));
    assert_eq!(book, before, "a refused transaction was posted in part");
    assert!(ledger::withdraw(WORKER, Amount(-1)).is_err(), "a negative withdrawal would mint");
}

#[test]
fn only_openers_who_were_right_and_did_not_lose_share_in_a_conviction_each_owner_once() {
    let accepted = zoo::tiny().build(Fault::None, 0).claim().clone();
    let [right, other, wrong, lost, late] = [1, 2, 3, 4, 5].map(|byte| OwnerId([byte; 16]));
    let truth = accepted.layers[1];
    let opening = |owner: OwnerId, key: u8, commitment| Opening {
        open: Open { claim: CLAIM, challenger: PartyId::from_bytes([key; 32]), layer: 1, commitment },
        owner,
        is_lost: owner == lost,
    };
    let mut beyond = opening(other, 9, truth);
    beyond.open.layer = 99;
    let openings = [
        opening(right, 1, truth),
        opening(wrong, 2, accepted.layers[0]),
        // Another key of the same owner.
        opening(right, 3, truth),
        opening(lost, 4, truth),
        beyond,
        opening(late, 5, truth),
    ];
    let (proof, silence) = (Grounds::Proof { prover: right }, Grounds::Silence);
    let equivocation = Grounds::Equivocation { reporter: None };
    for grounds in [proof, silence, equivocation] {
        assert_eq!(ledger::confirmed_openers(&openings, Some(&accepted), grounds), vec![right, late]);
    }
    // Nothing was accepted: nobody can say who was right, but who lost is known, and whether the claim was wrong.
    assert_eq!(ledger::confirmed_openers(&openings, None, proof), vec![right, wrong, other, late]);
    for grounds in [silence, equivocation] {
        assert_eq!(ledger::confirmed_openers(&openings, None, grounds), vec![]);
    }
}

/// A stake of 1,000: a quarter each to treasury and submitter, refunds of 60 within 100.
fn paid(grounds: Grounds, openers: &[OwnerId]) -> Transaction {
    let parameters = Parameters {
        slash_to_treasury_ppm: 250_000,
        slash_to_submitter_ppm: 250_000,
        opener_refund_cap_ppm: 100_000,
        opener_refund: Amount(60),
        ..Parameters::default()
    };
    let stake = Amount(1_000);
    let payout =
        ConvictionPayout { claim: CLAIM, stake, submitter: SUBMITTER, grounds, confirmed_openers: openers };
    ledger::pay_conviction(&payout, &parameters).expect("the amounts are valid")
}

#[test]
fn refunds_go_by_the_order_of_openings_until_their_cap_is_used_up() {
    let openers = [7, 8, 9].map(|byte| OwnerId([byte; 16]));
    let paid = paid(Grounds::Proof { prover: CHALLENGER }, &openers);
    assert_eq!(openers.map(|opener| gain(&paid, Account::Free(opener))), [60, 40, 0]);
    assert_eq!(gain(&paid, Account::Free(CHALLENGER)), 400);
}

/// Whoever wins by a worker's silence has shown nothing: it may be the worker's confederate.
#[test]
fn without_a_proof_the_share_goes_to_openers_who_were_right_and_to_nobody_else() {
    let openers = [7, 8, 9].map(|byte| OwnerId([byte; 16]));
    for grounds in [
        Grounds::Silence,
        Grounds::Equivocation { reporter: None },
        Grounds::Equivocation { reporter: Some(CHALLENGER) },
    ] {
        let shared = paid(grounds, &openers);
        assert_eq!(openers.map(|opener| gain(&shared, Account::Free(opener))), [168, 166, 166]);
        assert_eq!((gain(&shared, Account::Treasury), gain(&shared, Account::Free(SUBMITTER))), (250, 250));
        assert_eq!(gain(&shared, Account::Free(CHALLENGER)), 0);
    }
    // Nothing says that the claim was wrong: the submitter may be the one who disputed it.
    assert_eq!(gain(&paid(Grounds::Silence, &[]), Account::Treasury), 1_000);
    assert_eq!(gain(&paid(Grounds::Equivocation { reporter: None }, &[]), Account::Treasury), 750);
    let reported = paid(Grounds::Equivocation { reporter: Some(CHALLENGER) }, &[]);
    assert_eq!(gain(&reported, Account::Free(CHALLENGER)), 500);
}
