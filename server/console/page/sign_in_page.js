// Asks for the token.

import {el} from '/dom.js';

export function signInPage(content, problem, onToken) {
  const input = el('input', {
    id: 'token', type: 'password', autocomplete: 'off', spellcheck: 'false', required: true,
    'aria-describedby': problem ? 'token-problem token-hint' : 'token-hint',
  });
  const form = el('form', {class: 'sign-in'},
      el('h1', {}, 'Sign in'),
      el('label', {for: 'token'}, 'Access token'),
      input,
      problem ? el('p', {id: 'token-problem', class: 'problem', role: 'alert'}, problem) : null,
      el('p', {id: 'token-hint', class: 'hint'},
         'The token that the command line uses. It stays in this tab and is forgotten when you close it.'),
      el('button', {type: 'submit'}, 'Sign in'));
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const token = input.value.trim();
    if (/^[\x21-\x7e]{1,512}$/.test(token)) {
      onToken(token);
    } else {
      signInAgain(content, 'That is not a token: it has characters that no token has.', onToken);
    }
  });
  content.append(form);
  input.focus();
}

function signInAgain(content, problem, onToken) {
  content.replaceChildren();
  signInPage(content, problem, onToken);
}
