"""What runs a network: OpenVINO (the base install) or torch (the extra [train])."""
