"""What the account at a provider still has of something that nobody wants."""

from cli.client import JsonObject
from cli.session import Session
from cli.text import plural


def tell_what_is_left(session: Session, operation: JsonObject) -> None:
    """Say what an ended operation left in the account, where it looked."""
    inventory = operation.get("inventory")
    if not inventory:
        return
    session.output.say(*verdict_on(inventory))
    if inventory.get("left"):
        session.output.next_commands("bulkhead leaks")


def verdict_on(inventory: JsonObject) -> tuple[str | tuple[str, str], ...]:
    """Return the sentence on an inventory, as parts with styles."""
    left = inventory.get("left")
    if left is None:
        return (("? ", "yellow"), "The account has not been asked yet.")
    if left:
        return (("✗ ", "red"), f"{plural(left, 'resource')} left that nobody wants.")
    return (("✓ ", "green"), "0 left: nothing in the account that nobody wants.")
