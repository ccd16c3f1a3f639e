Feature: An agent's script works over files
  An agent writes a script, the owner of the node allows a folder, and what the script leaves comes back.

  @U1 @F1 @system
  Scenario: A script reads a mounted folder and leaves artifacts
    Given a running node
    And a folder of 3 documents, of which one is broken
    When the agent runs a script over the folder
    Then the job has succeeded
    And an artifact for each good document came back
    And the broken document is named in the result
    And the documents are unchanged

  @U1 @T1 @system
  Scenario: A script that fails keeps what it did before
    Given a running node
    When the agent runs a script that prints, leaves a file and then raises
    Then the job has failed and its end says what was raised
    And the output and the file from before are kept

  @U1 @R2 @system
  Scenario: The same request twice runs once
    Given a running node
    When the agent sends one request twice with the same idempotency key
    Then both answers name one job, which ran once
