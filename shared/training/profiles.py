"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Power-function profiles: how much the weights of time τ count in an average over a training of length t,

    p(τ) = (γ + 1) τ^γ / t^(γ + 1),        0 ≤ τ ≤ t,

and the combination of some of them that comes nearest to another one. Karras 2024 ("Analyzing and Improving the
Training Dynamics of Diffusion Models", arXiv 2312.02696), section 3.1 and appendix C.

γ is a poor name for a length. A profile is called by its width instead: its standard deviation over t, which of γ = 0,
the plain mean, is 1/√12 ≈ 0.289, and less of all that weigh late weights more.
"""

from typing import NamedTuple

import numpy as np


class Profile(NamedTuple):
    """A power function. Its fields may be arrays, for many of them."""

    gamma: float | np.ndarray
    t: float | np.ndarray


def exponent(width: float) -> float:
    """γ of a width: the largest root of width² (γ + 2)² (γ + 3) = γ + 1, a cubic; the others are not above -0.38.

    Args:
        width: the profile's standard deviation as a share of the training, above 0 and at most 1/√12.
    """
    s = width**-2
    roots = np.roots([1, 7, 16 - s, 12 - s])
    return float(roots.real.max())  # beside a positive root the others are negative


def width_of(gamma: float) -> float:
    """The inverse: the standard deviation of γ's profile over its length."""
    return (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5)


def product(a: Profile, b: Profile) -> float | np.ndarray:
    """∫ p_a(τ) p_b(τ) dτ, in closed form: the shorter one ends the integral. Of ratios, so that no power overflows."""
    end = np.minimum(a.t, b.t)
    factor = (a.gamma + 1) * (b.gamma + 1) / (a.gamma + b.gamma + 1) / end
    return factor * (end / a.t) ** (a.gamma + 1) * (end / b.t) ** (b.gamma + 1)


def combine(given: Profile, wanted: Profile) -> tuple[np.ndarray, float]:
    """The sum of the given profiles that is nearest to the wanted one, in the mean square over time.

    The paper's least squares with one condition more: the factors sum to 1, as all profiles do. Otherwise what the
    weights have in common all the time would be scaled by what the factors lack, by 1 % where snapshots are few.

    Args:
        given: (n,) each, no two of them alike.
        wanted: one, not longer than the longest.

    Returns:
        (n,) factors, and the distance that is left over the wanted profile's norm, 0 to 1.
    """
    alike = np.isclose(given.gamma, wanted.gamma, rtol=1e-12) & np.equal(given.t, wanted.t)
    if alike.any():
        return alike.astype(float), 0.0
    # scaled to norm 1, each: the condition number of 500 profiles is then 1e8, where float64 has 1e16
    norms, norm = np.sqrt(product(given, given)), float(np.sqrt(product(wanted, wanted)))
    rows, columns = (Profile(*(np.expand_dims(field, axis) for field in given)) for axis in (1, 0))
    gram, n = product(rows, columns) / np.outer(norms, norms), len(norms)
    right = product(given, wanted) / (norms * norm)
    ones = norm / norms
    system = np.block([[gram, ones[:, None]], [ones[None], np.zeros((1, 1))]])  # Lagrange's, with the condition below
    scaled = np.linalg.solve(system, np.append(right, 1.0))[:n]
    left = scaled @ gram @ scaled - 2 * scaled @ right + 1
    return scaled * ones, float(max(left, 0.0)) ** 0.5
