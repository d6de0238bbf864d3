"""Orders."""

from typing import ClassVar

from django.db import models


class Order(models.Model):
    """One order."""

    reference = models.CharField(max_length=40, unique=True)

    class Meta:
        """Newest first."""

        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return str(self.reference)
