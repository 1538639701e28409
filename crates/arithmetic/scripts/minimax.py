#!/usr/bin/env python3
"""Finds the polynomial coefficients of exp and erf and prints them as bits of binary32.

    python3 -m pip install mpmath
    python3 minimax.py

Method: best uniform approximation on a fine grid in 60-digit arithmetic. The coefficients are then rounded to binary32 one
at a time, from the lowest power up, and the rest is solved again after each: a later coefficient makes up for
the rounding of an earlier one. The printed error is that of the rounded polynomial in exact arithmetic; the
error of the functions themselves, roundings included, is what `examples/ulp.rs` measures.
"""

import struct

from mpmath import mp, mpf, matrix, lu_solve, fdot, exp, erf, erfc, log, sqrt, pi, cos

mp.dps = 60
GRID = 1500  # even, so that no point of a symmetric grid is zero, where powers vanish


def to_f32(value):
    """The nearest binary32, exactly."""
    return mpf(struct.unpack("<f", struct.pack("<f", float(value)))[0])


def bits(value):
    return struct.unpack("<I", struct.pack("<f", float(value)))[0]


def chebyshev_grid(low, high):
    middle, half = (low + high) / 2, (high - low) / 2
    return [middle - half * cos(pi * (i + mpf(1) / 2) / GRID) for i in range(GRID)]


def best_uniform(rows, values):
    """Coefficients c that minimize max |values[i] − rows[i]·c|: Stiefel's exchange, one point at a time.

    A reference is one point more than there are coefficients. The rows of a reference have one linear relation;
    its signs are those that the residuals have at the optimum on the reference. The worst point of the grid
    enters, and the ratio test says which point leaves; the level rises until no point is worse. Unlike Remez's
    exchange it needs no Haar condition, which powers without the constant do not meet on both sides of zero.
    """
    count = len(rows[0])
    last = len(rows) - 1
    reference = [i * last // count for i in range(count + 1)]
    for _ in range(1000):
        relation = matrix(count + 1, count + 1)
        for column, index in enumerate(reference):
            for j in range(count):
                relation[j, column] = rows[index][j]
        relation[count, 0] = 1
        unit = matrix(count + 1, 1)
        unit[count] = 1
        multipliers = lu_solve(relation, unit)
        system, right = matrix(count + 1, count + 1), matrix(count + 1, 1)
        for row, index in enumerate(reference):
            for j in range(count):
                system[row, j] = rows[index][j]
            system[row, count] = 1 if multipliers[row] > 0 else -1
            right[row] = values[index]
        solution = lu_solve(system, right)
        coefficients, level = [solution[j] for j in range(count)], solution[count]
        residuals = [v - fdot(row, coefficients) for row, v in zip(rows, values)]
        worst = max(range(len(rows)), key=lambda i: abs(residuals[i]))
        if abs(residuals[worst]) <= abs(level) * mpf("1.0001"):
            return coefficients
        entering = matrix(count + 1, 1)
        for j in range(count):
            entering[j] = rows[worst][j]
        combination = lu_solve(relation, entering)
        side = (1 if residuals[worst] > 0 else -1) * (1 if level > 0 else -1)
        leaving = max(range(count + 1), key=lambda i: side * combination[i] / multipliers[i])
        reference[leaving] = worst
    raise ArithmeticError("the exchange did not settle")


def fit(name, low, high, target, powers, weight):
    """Fits, rounds coefficient by coefficient, prints, and returns the rounded coefficients by power."""
    points = chebyshev_grid(mpf(low), mpf(high))
    rest = [target(x) for x in points]
    weights = [weight(x) for x in points]
    fixed = {}
    for done in range(len(powers)):
        rows = [[w * x ** p for p in powers[done:]] for w, x in zip(weights, points)]
        coefficients = best_uniform(rows, [w * t for w, t in zip(weights, rest)])
        power, value = powers[done], to_f32(coefficients[0])
        fixed[power] = value
        rest = [t - value * x ** power for t, x in zip(rest, points)]
    worst = max(abs(w * r) for w, r in zip(weights, rest))
    print(f"{name}: on [{mp.nstr(mpf(low), 8)}, {mp.nstr(mpf(high), 8)}], error 2^{mp.nstr(log(worst, 2), 5)}")
    for power, value in fixed.items():
        print(f"  c{power:<2} 0x{bits(value):08x}  {mp.nstr(value, 10)}")
    return fixed


def constant(name, value):
    print(f"{name:28} 0x{bits(value):08x}  {mp.nstr(to_f32(value), 10)}")


def main():
    ln2, one = log(mpf(2)), mpf(1)
    high = to_f32(ln2)
    constant("log2(e)", one / ln2)
    constant("ln2, high part", high)
    constant("ln2, low part", ln2 - high)
    constant("1/sqrt(2)", 1 / sqrt(mpf(2)))
    constant("-2 sqrt(2/pi)", -2 * sqrt(2 / pi))
    constant("0.044715", mpf("0.044715"))
    constant("1e-12", mpf("1e-12"))
    constant("exp: +0 below", mpf("-87.3"))
    constant("exp: +inf above", mpf("88.72283"))

    # e^r = 1 + r + r^2 q(r); the interval is half of ln2, a little widened for the rounding of n.
    # The error is relative.
    fit("exp, in r", -ln2 / 2 - mpf("1e-5"), ln2 / 2 + mpf("1e-5"),
        lambda r: exp(r) - 1 - r, list(range(2, 7)), lambda r: exp(-r))

    # |x| < SPLIT: erf(x) = x + x p(t), t = x^2 - SHIFT. The error is relative to erf(x).
    def p(t):
        x = sqrt(abs(t + SHIFT))
        return erf(x) / x - 1

    fit("erf, small, in t = x^2 - 0.5", -SHIFT, SPLIT ** 2 - SHIFT,
        p, list(range(SMALL_DEGREE + 1)), lambda t: 1 / (1 + p(t)))

    # SPLIT <= |x| <= 4: erf(x) = 1 - q(t), t = |x| - CENTRE. The error is absolute.
    fit("erf, large, in t = |x| - 2.5625", SPLIT - CENTRE, 4 - CENTRE,
        lambda t: erfc(CENTRE + t), list(range(LARGE_DEGREE + 1)), lambda t: one)


# Where erf changes polynomials, and what each subtracts from its variable. The Horner sums of a wider first range
# lose too much to cancellation; a shift that lets t take both signs keeps their terms small.
SPLIT = mpf("1.1875")
SHIFT = mpf("0.5")
CENTRE = mpf("2.5625")
SMALL_DEGREE = 7
LARGE_DEGREE = 13

if __name__ == "__main__":
    main()
