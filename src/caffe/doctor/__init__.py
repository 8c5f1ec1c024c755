"""`caffe doctor`: examines a training run before it is started, and proves what it finds by replay."""

from caffe.doctor.diagnose import Report, diagnose
from caffe.doctor.finding import Finding, Severity

__all__ = ["Finding", "Report", "Severity", "diagnose"]
