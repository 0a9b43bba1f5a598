"""What runs a network: OpenVINO (the base install) or torch (the extra [train])."""

import sys

# To import OpenVINO is to be counted: this package of its writes into the home folder, fails where there is
# none, and calls its makers over the network. Without it, OpenVINO does the same work and none of that.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
