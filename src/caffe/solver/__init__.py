"""Training: solvers, update rules, learning rate policies, snapshots."""

from caffe.solver import rules_modern as rules_modern  # registers its rules
from caffe.solver import schedules as schedules  # registers its policies
from caffe.solver import second_order as second_order  # registers its rules
from caffe.solver.classes import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)
from caffe.solver.policy import Policy, policy_names
from caffe.solver.rules import Rule, rule_types
from caffe.solver.solver import Solver
from caffe.solver.watchers import Watcher

__all__ = [
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "Policy",
    "RMSPropSolver",
    "Rule",
    "SGDSolver",
    "Solver",
    "Watcher",
    "get_solver",
    "policy_names",
    "rule_types",
]
