console.log("frappe")
