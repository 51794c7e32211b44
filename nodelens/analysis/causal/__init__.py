"""Causal checks: does a score find the channels whose loss is felt?"""

from nodelens.analysis.causal.board import BoardEntry, LeaderboardCheck
from nodelens.analysis.causal.check import CausalCheck, CausalResult
from nodelens.analysis.causal.classes import ClassProfile, class_selectivity_profile
from nodelens.analysis.causal.damage import measured_damage
from nodelens.analysis.causal.doses import Cascade, HitRateSweep, cascade, hit_rate_sweep
from nodelens.analysis.causal.estimates import Estimate
from nodelens.analysis.causal.halos import HaloAblation, halo_ablation
from nodelens.analysis.causal.leaderboard import Leaderboard, lens_leaderboard
from nodelens.analysis.causal.lens import CausalLens
from nodelens.analysis.causal.lesions import INTACT, Damage, Lesion, lesion
from nodelens.analysis.causal.matched import MatchedCascade, matched_cascade
from nodelens.analysis.causal.pairs import PairLesion, pair_lesion
from nodelens.analysis.causal.receivers import Receivers, halo_receivers
from nodelens.analysis.causal.validation import AblationValidation, ablation_validation

__all__ = [
    "INTACT",
    "AblationValidation",
    "BoardEntry",
    "Cascade",
    "CausalCheck",
    "CausalLens",
    "CausalResult",
    "ClassProfile",
    "Damage",
    "Estimate",
    "HaloAblation",
    "HitRateSweep",
    "Leaderboard",
    "LeaderboardCheck",
    "Lesion",
    "MatchedCascade",
    "PairLesion",
    "Receivers",
    "ablation_validation",
    "cascade",
    "class_selectivity_profile",
    "halo_ablation",
    "halo_receivers",
    "hit_rate_sweep",
    "lens_leaderboard",
    "lesion",
    "matched_cascade",
    "measured_damage",
    "pair_lesion",
]
