"""Estimates the security of small keys: LWE with block-binary keys, at every dimension the compiler emits.

    python3 spec/estimates/block_binary.py                         # the attacks on blocks, in plain Python
    sage -python spec/estimates/block_binary.py lattice-estimator  # also what the lattice estimator says (minutes a row)

The argument is a checkout of the lattice estimator (github.com/malb/lattice-estimator), which needs SageMath. Costs are log2
of operations in the model BDGL16, lattices follow the geometric series assumption, samples are unlimited. Everything is in
units of the torus, so the modulus does not appear as long as the noise spans some units of it. Derivation: spec/security.md.
"""

import sys
from collections import namedtuple
from math import erf, exp, lgamma, log, log2, pi, sqrt

DIMENSIONS = sorted({*range(600, 1201, 24), 960, 1152, 1280})
SOME = [600, 768, 960, 1152, 1280]

# What an attacker knows of a key. lattice: standard deviation in the geometric mean of the directions; single: that of a
# coordinate; entropy: bits of a coordinate.
Key = namedtuple("Key", "lattice single entropy")
# The b + 1 values of a block are the corners of a simplex: the determinant of their covariance is (b + 1)^-(b + 1).
PLAIN = Key(1 / 2, 1 / 2, 1)
PAIRS = Key(3 ** (-3 / 4), sqrt(2) / 3, log2(3) / 2)
BLOCKS = Key(4 ** (-4 / 6), sqrt(3) / 4, 2 / 3)


def plain_curve(n):
    """log2 of the least noise of plain binary keys (ir/src/params.rs, minimal_log2_std)."""
    return 0.5 * log2(2 ** (5.314691876750680 - 0.0497829131652661 * n) + 2.0 ** (4 - 128))


def block_curve(n):
    """The same for block-binary keys (ir/src/params.rs, minimal_block_log2_std)."""
    return 5.07 - 0.02637 * n


def log_delta(beta):
    """Logarithm of the root Hermite factor of BKZ with blocks of beta (Chen's thesis, 2013)."""
    return log(beta / (2 * pi * exp(1)) * (pi * beta) ** (1 / beta)) / (2 * (beta - 1))


def sieve(beta):
    """A sieve of Becker, Ducas, Gama, Laarhoven (SODA 2016), with the constant of the lattice estimator."""
    return 0.292 * beta + 16.4


def bkz(beta, d):
    """BKZ by such sieves, 8 d of them."""
    return sieve(beta) + log2(8 * d)


def add(*costs):
    """log2 of a sum, given log2 of its terms."""
    most = max(costs)
    return most + log2(sum(2 ** (cost - most) for cost in costs))


def least(f, low, high):
    """The least value of a function with one valley on the integers low..high, and where it is."""
    while high - low > 3:
        third = (high - low) // 3
        if f(low + third) <= f(high - third):
            high -= third
        else:
            low += third
    return min((f(x), x) for x in range(low, high + 1))


def dual_hybrid(n, log2_std, key):
    """The dual hybrid attack (MATZOV 2022, theorem 7.6) at its best: blocks of BKZ and of the last sieve, number of samples,
    coordinates enumerated and coordinates in the Fourier transform modulo 2 are all free. An enumerated coordinate costs the
    entropy of the key, and the transform computes only the scores of possible keys."""
    noise = log2_std * log(2)

    def cost(beta, last, tried, transformed):
        rest = n - tried - transformed
        gap = log(key.lattice) - noise
        d = max(sqrt(rest * gap / log_delta(beta)), rest + 1)  # the best number of samples, d - rest
        length = noise + rest * gap / d + log(4 / 3 * last / (2 * pi * exp(1))) / 2 + (d - last) * log_delta(beta)
        if length > 3:
            return 1e9  # noise beyond the torus: nothing to tell apart
        bits = (tried + transformed) * key.entropy
        vectors = 4 * (pi * exp(length)) ** 2 + transformed / 3 * (key.single * pi / 2) ** 2 + log((bits + 1) * log(2))
        vectors /= log(2)
        sample = add(bkz(beta, d), sieve(last)) + max(0, vectors - 0.2075 * last)
        # Processing block after block, a table of v sparse entries grows only once fewer than v patterns are left.
        table = key.entropy * transformed + (1 - key.entropy) * min(vectors, transformed)
        transform = add(log2(32**2 * max(transformed, 1) * 2) + table, log2(4 * 5 * 32) + vectors)
        return add(sample, tried * key.entropy + transform)

    def best_beta(tried, transformed):
        at = lambda beta: min(cost(beta, last, tried, transformed) for last in range(beta, beta + 72, 3))
        return least(at, 120, 560)[0]

    return descend(best_beta, (45, 60), n)


def primal_hybrid(n, log2_std, key):
    """BKZ, then a sieve for the closest vector for each guess of some coordinates (Albrecht, Curtis, Wunderer, SAC 2019)."""

    def cost(beta, tried, samples):
        rest = n - tried
        d = rest + samples
        volume = -samples * log2_std * log(2) - rest * log(key.lattice)

        def found(last):  # is the projected secret shorter than the lattice's own vectors?
            log_volume = last / d * volume - (d - last) * last * log_delta(beta)
            ball = (last + 1) / 2 * log(pi) - lgamma((last + 1) / 2 + 1)
            return (log_volume - ball) / (last + 1) >= log(last + 1) / 2

        low, high = 2, d
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if found(middle) else (middle + 1, high)
        return add(bkz(beta, d), tried * key.entropy + sieve(low)) if found(low) else 1e9

    return by_guesses(cost, n, 18)


def meet_in_the_middle(n, log2_std, key):
    """Howgrave-Graham's hybrid (CRYPTO 2007): half the guesses each way, joined by rounding, which errs unless no coordinate
    crosses a border (Son and Cheon, WAHC 2019). The model of the lattice estimator, but a block counts as two bits."""

    def cost(beta, tried, samples):
        rest = n - tried
        d = rest + samples
        volume = -samples * log2_std * log(2) - rest * log(key.lattice)
        chance = 0.0
        for i in range(d):
            x = exp(min(50, volume / d + (d - 1 - 2 * i) * log_delta(beta))) / sqrt(2)
            stays = erf(x) - (1 - exp(-x * x)) / (x * sqrt(pi))
            if stays < 1e-12:
                return 1e9
            chance -= log2(stays)
        return chance + add(bkz(beta, d), tried * key.entropy / 2 + 2 * log2(d))

    return by_guesses(cost, n, 192)


def by_guesses(cost, n, start):
    """The least cost(beta, coordinates guessed, samples)."""
    by_samples = lambda beta, tried: least(lambda m: cost(beta, tried, m), n // 4, 2 * n)[0]
    by_beta = lambda tried, _: least(lambda beta: by_samples(beta, tried), 200, 520)[0]
    return descend(by_beta, (start, 0), n, second=False)


def descend(f, start, n, second=True):
    """The least of f(x, y) by steps to better neighbours, from coarse to fine; x and y multiples of three."""
    known = {}

    def at(x, y):
        if x < 0 or y < 0 or x + y > n // 2:
            return 1e9
        if (x, y) not in known:
            known[x, y] = f(x, y)
        return known[x, y]

    point, step = start, 12
    while True:
        moves = [(dx, dy) for dx in (-step, 0, step) for dy in ((-step, 0, step) if second else (0,))]
        best = min(((point[0] + dx, point[1] + dy) for dx, dy in moves), key=lambda p: at(*p))
        if at(*best) < at(*point):
            point = best
        elif step == 3:
            return at(*point)
        else:
            step = max(3, step // 2)


def table(title, columns, rows):
    columns = ["n", "log2 std", *columns]
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)
    for n, log2_std, *bits in rows:
        # Rounded down: a figure printed is a figure reached.
        print(f"| {n} | {log2_std:.2f} | " + " | ".join(f"{int(b * 10) / 10:.1f}" for b in bits) + " |", flush=True)


def by_estimator(path):
    """What the lattice estimator finds cheapest of its primal and of its dual attacks."""
    sys.path.insert(0, path)
    from estimator import LWE, ND, RC

    def costs(n, log2_std, secret, modulus_bits=64):
        q = 2**modulus_bits
        params = LWE.Parameters(n=n, q=q, Xs=secret, Xe=ND.DiscreteGaussian(q * 2.0**log2_std))
        attacks = [LWE.primal_usvp, LWE.primal_bdd, LWE.dual_hybrid]
        found = [log2(float(attack(params, red_cost_model=RC.BDGL16)["rop"])) for attack in attacks]
        return min(found[:2]), min(found[2:])

    for n in DIMENSIONS:
        own, old, sparse = block_curve(n), plain_curve(n), ND.SparseBinary(n // 4)
        primal, dual = costs(n, own, sparse)
        yield n, own, primal, dual, min(costs(n, own, sparse, 32)), min(costs(n, old, sparse)), min(costs(n, old, ND.Uniform(0, 1)))


def main():
    def rows(key, curve, dimensions, *attacks):
        return ((n, curve(n), *(attack(n, curve(n), key) for attack in attacks)) for n in dimensions)

    both = ["primal", "dual hybrid"]
    attacks = (primal_hybrid, dual_hybrid)
    table("Blocks of three", both, rows(BLOCKS, block_curve, DIMENSIONS, *attacks))
    table("Blocks of two", both, rows(PAIRS, block_curve, SOME, *attacks))
    table("Blocks of three on the curve of plain keys", both, rows(BLOCKS, plain_curve, SOME, *attacks))
    table("Plain binary keys", both, rows(PLAIN, plain_curve, [768, 1024, 1280, 1536, 2048], *attacks))
    table("Blocks of three, meeting in the middle", ["primal"], rows(BLOCKS, block_curve, SOME, meet_in_the_middle))
    if len(sys.argv) > 1:
        columns = ["primal", "dual", "least, q = 2^32", "least, plain curve", "least, plain curve, plain key"]
        table("Sparse binary keys of weight n/4, by the lattice estimator", columns, by_estimator(sys.argv[1]))


if __name__ == "__main__":
    main()
