// What npm's openai makes of a server: its address and a prompt are the arguments, JSON on standard output the result.

import OpenAI from "openai";

const [address, prompt] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "none", maxRetries: 0 });
const asked = { model: "default@3", messages: [{ role: "user", content: prompt }], seed: 1 };

const whole = await client.chat.completions.create(asked);

const steps = {};
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  const delta = chunk.choices[0]?.delta ?? {};
  if (delta.reasoning_content) (steps[chunk.hogwild.worker] ??= []).push(delta.reasoning_content);
  streamed += delta.content ?? "";
}

const helper = client.chat.completions.stream(asked);
const helped = await helper.finalContent();

const response = client.responses.stream({ model: "default@3", input: prompt, seed: 1 });
const final = await response.finalResponse();

const wrong = await client.chat.completions.create({ ...asked, temperature: "hot" }).catch((error) => error);

console.log(
  JSON.stringify({
    models: (await client.models.list()).data.map((model) => model.id),
    whole: whole.choices[0].message.content,
    tokens: whole.usage.completion_tokens,
    streamed,
    steps,
    helped,
    response: final.output_text,
    items: final.output.map((item) => item.type),
    wrong: [wrong.status, wrong.param],
  }),
);
