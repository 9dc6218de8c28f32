// Asks the browser for a passkey, and sends what it gives with the form of the page. The only script of these pages: without
// it, a code does the same.
"use strict";
{
  const form = document.getElementById("passkey");
  const button = form.querySelector("button");
  const fault = document.getElementById("passkey-fault");
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer ?? []))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const { challenge, rp, user, username, ids } = form.dataset;
  const own = ids.split(" ").filter(Boolean).map((id) => ({ type: "public-key", id: bytes(id) }));
  const set = (name, value) => { form.elements[name].value = value; };

  async function create() {
    const made = await navigator.credentials.create({
      publicKey: {
        challenge: bytes(challenge),
        rp: { id: rp, name: "Phial" },
        user: { id: bytes(user), name: username, displayName: username },
        pubKeyCredParams: [{ type: "public-key", alg: -7 }, { type: "public-key", alg: -257 }],
        authenticatorSelection: { userVerification: "required", residentKey: "preferred" },
        excludeCredentials: own,
        attestation: "none",
        timeout: 120000,
      },
    });
    set("client_data", text(made.response.clientDataJSON));
    set("attestation", text(made.response.attestationObject));
  }

  async function get() {
    const given = await navigator.credentials.get({
      publicKey: { challenge: bytes(challenge), rpId: rp, allowCredentials: own, userVerification: "required", timeout: 120000 },
    });
    set("id", text(given.rawId));
    set("client_data", text(given.response.clientDataJSON));
    set("auth_data", text(given.response.authenticatorData));
    set("signature", text(given.response.signature));
    set("user_handle", text(given.response.userHandle));
  }

  if (window.PublicKeyCredential) {
    button.hidden = false;
    for (const note of form.querySelectorAll("[data-without]")) note.hidden = true;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      fault.hidden = true;
      button.disabled = true;
      try {
        await (form.dataset.ceremony === "create" ? create() : get());
        form.submit();
      } catch (error) {
        button.disabled = false;
        fault.hidden = false;
        fault.textContent = error.name === "InvalidStateError"
          ? "This device has a passkey for this account already."
          : "The browser gave no passkey. Try again, or use a code.";
      }
    });
  }
}
