"""`caffe doctor`: examines a training run before it starts, and verifies its findings by short trial runs."""

from caffe.doctor.diagnose import Report, diagnose
from caffe.doctor.finding import Finding, Severity

__all__ = ["Finding", "Report", "Severity", "diagnose"]
