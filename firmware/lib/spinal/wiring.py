"""What node.json says about sensors and actuators, in the words of the other parts."""

FIRMWARE = "0.1.0"
"""Version of the application that boards are flashed with."""


def birth(node: dict, version: str) -> dict:
    """The DeviceInfo payload; `version` is of the application that runs."""
    sensors = [_sensor_capability(sensor) for sensor in node["sensors"]]
    actuators = [_actuator_capability(actuator) for actuator in node["actuators"]]
    return {
        "board": node["board"],
        "firmware": version,
        "versions": ["v1"],
        "capabilities": sensors + actuators,
    }


def declaration(actuator: dict) -> dict:
    """An actuator as the ledger and the reflex engine declare it (see spinal.efferent)."""
    number = actuator["driver"] == "pwm"
    config = {"id": actuator["id"], "type": "number" if number else "bool"}
    if number:
        config["min"], config["max"] = actuator["min"], actuator["max"]
    for name in ("boot", "on_loss", "max_on_ms"):
        if actuator[name] is not None:
            config[name] = actuator[name]
    return config


def _sensor_capability(sensor: dict) -> dict:
    number = sensor["driver"] == "analog"
    capability = {
        "id": sensor["id"],
        "kind": "sensor",
        "output_schema": "number" if number else "bool",
    }
    for name in ("unit", "device_class"):
        if sensor[name] is not None:
            capability[name] = sensor[name]
    return capability


def _actuator_capability(actuator: dict) -> dict:
    number = actuator["driver"] == "pwm"
    capability = {
        "id": actuator["id"],
        "kind": "actuator",
        "input_schema": "number" if number else "bool",
    }
    if number:
        capability["minimum"], capability["maximum"] = actuator["min"], actuator["max"]
    if actuator["device_class"] is not None:
        capability["device_class"] = actuator["device_class"]
    return capability
