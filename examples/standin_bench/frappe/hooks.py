"""The framework is an app too; it needs no hooks here."""

app_name = "frappe"
