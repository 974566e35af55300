# Which side of its kink everything is on, or between, where a step has ended at one.

# At a kink is what is as near to it as the points of steps that end there come; it is judged together.
const NEAR = 4                 # in units of rounding

"All that is at its kink at the point of the last forward pass, what was met and what has slid, in `kinks.judged`."
function gather!(kinks::Kinks)
    empty!(kinks.judged)
    for (b, block) in enumerate(kinks.net.blocks), (q, k) in enumerate(block.kinks)
        for u in 1:size(k.h, 2), r in 1:kinks.rows[b]
            @inbounds abs(k.h[r, u]) <= NEAR * k.noise && push!(kinks.judged, Contact(b, q, r, u))
        end
    end
    near = length(kinks.judged)
    for list in (kinks.met, kinks.active), c in list
        c in kinks.judged || push!(kinks.judged, c)
    end
    for f in kinks.fellows
        f.contact in kinks.judged || push!(kinks.judged, f.contact)
    end
    length(kinks.judged) > near && sort!(kinks.judged, by=c -> c.block)
    return nothing
end

# Normals and pulls of what is judged, with the sides as they are, and the whole gradient there in `g`.
function pulls!(kinks::Kinks{T}, problem::FlowProblem{T}, y, g) where {T}
    value_and_gradient_at!(g, problem, y)
    θ, last = full(problem.net, parameters(problem, y)), 0
    resize!(kinks.pull, length(kinks.judged))
    room!(kinks.normals, length(kinks.judged), problem.n)
    for (i, c) in enumerate(kinks.judged)
        kinks.pull[i], last = pull!(kinks, θ, c, last)
        copyto!(kinks.normals[i], normal!(kinks, problem, c, θ))
    end
    return nothing
end

# Who goes with whom: the first that has the same normal, but for a factor.
function find_leaders!(kinks::Kinks{T}) where {T}
    m = length(kinks.judged)
    resize!(kinks.leader, m)
    resize!(kinks.ratio, m)
    for i in 1:m
        n = kinks.normals[i]
        square = dot(n, n)
        kinks.leader[i], kinks.ratio[i] = i, one(T)
        square > 0 || continue
        for j in 1:i-1
            kinks.leader[j] == j || continue
            l = kinks.normals[j]
            whole, both = dot(l, l), dot(n, l)
            whole > 0 && both^2 >= (1 - 64 * eps(T)) * whole * square || continue
            kinks.leader[i], kinks.ratio[i] = j, both / whole
            break
        end
    end
    return nothing
end

# The side that goes with the weight `w` of the leader.
follow(w::T, ratio::T) where {T} = ratio > 0 ? w : 1 - w

const SWEEPS = 200             # of all that is judged
const FLIPS = 3                # of a kink that the flow points away from: with more of them there may be no end

# Another side for what is judged, and for the gradient `g`; by how much it was another one.
function turn!(kinks::Kinks, i::Int, new, g)
    c = kinks.judged[i]
    w = side(kinks, c)
    add_scaled!(g, kinks.pull[i] * (new - w), kinks.normals[i])
    side!(kinks, c, new)
    return abs(new - w)
end

"""
    judge!(kinks, problem, y, g, probing)

Sides at `y` such that what is judged moves to its side, or stays at its kink with a weight between: one kink after the
other, again and again (Gauss–Seidel). Where the gradient grows across all kinks this is the part of least norm of all
its convex combinations, which is unique. Else it begins with the sides that the flow came with.
"""
function judge!(kinks::Kinks{T}, problem::FlowProblem{T}, y, g, probing::Bool) where {T}
    foreach(empty!, (kinks.active, kinks.fellows))
    kinks.known = false
    for c in kinks.judged
        side!(kinks, c, clamp(side(kinks, c), zero(T), one(T)))
    end
    pulls!(kinks, problem, y, g)
    find_leaders!(kinks)
    size = norm(g)
    changed = zero(T)
    for (i, l) in enumerate(kinks.leader)
        l == i && continue
        changed = max(changed, turn!(kinks, i, follow(side(kinks, kinks.judged[l]), kinks.ratio[i]), g))
        kinks.pull[l] += kinks.pull[i] * abs(kinks.ratio[i])
        kinks.leeway[l] = max(kinks.leeway[l], kinks.leeway[i])
    end
    changed = max(changed, find_rest!(kinks, g, size), sweep!(kinks, g, size))
    if probing && undecided(kinks, g)
        probe!(kinks, problem, y)
        judge!(kinks, problem, y, g, false)
        return T(Inf)
    end
    overshoot!(kinks, g)
    for (i, l) in enumerate(kinks.leader)
        l == i || side!(kinks, kinks.judged[i], follow(side(kinks, kinks.judged[l]), kinks.ratio[i]))
    end
    return changed
end

# What is at rest on side 0, as pre-activations to which all that leads is off and whose biases are zero, begins there:
# that is the side which the loss itself takes, and the flow need not leave it.
function find_rest!(kinks::Kinks{T}, g, size) where {T}
    resize!(kinks.rest, length(kinks.judged))
    changed = zero(T)
    for (i, c) in enumerate(kinks.judged)
        n, k, w = kinks.normals[i], sides(kinks, c), side(kinks, c)
        on_side_0 = dot(g, n) - kinks.pull[i] * w * dot(n, n)
        kinks.rest[i] = kinks.leader[i] == i && kinks.pull[i] < 0 && abs(k.h[c.row, c.unit]) <= k.noise &&
                        abs(on_side_0) <= rounding(n, size)
        kinks.rest[i] && w != 0 && (changed = max(changed, turn!(kinks, i, zero(T), g)))
    end
    return changed
end

# Weights at an end of [0, 1] go on beyond it, up to their slack: by that is known what is to leave its kink. In the
# sweeps, which others heed, they don't: a pre-activation that is to stay at rest would be set in motion by it.
function overshoot!(kinks::Kinks{T}, g) where {T}
    for (i, c) in enumerate(kinks.judged)
        kinks.leader[i] == i && kinks.pull[i] > 0 || continue
        n, w = kinks.normals[i], side(kinks, c)
        square, slack = dot(n, n), kinks.leeway[i] / 2
        square > 0 && (w == 0 || w == 1) || continue
        side!(kinks, c, clamp(w - dot(g, n) / (kinks.pull[i] * square), -slack, 1 + slack))
    end
    return nothing
end

# Of the part along the normal `n` of a gradient of that size.
rounding(n::Vector{T}, size::T) where {T} = 64 * eps(T) * norm(n) * size

function sweep!(kinks::Kinks{T}, g, size) where {T}
    changed = zero(T)
    for sweep in 1:SWEEPS
        moved = zero(T)
        for (i, c) in enumerate(kinks.judged)
            kinks.leader[i] == i || continue
            n, pull, w = kinks.normals[i], kinks.pull[i], side(kinks, c)
            square = dot(n, n)
            square > 0 || continue
            toward = -dot(g, n)
            if pull > 0
                new = clamp(w + toward / (pull * square), zero(T), one(T))
            else
                sweep <= FLIPS || continue
                noise = rounding(n, size)
                new = toward > noise ? one(T) : toward < -noise ? zero(T) : w
            end
            new == w && continue
            moved = max(moved, abs(pull) * sqrt(square) * turn!(kinks, i, new, g))
            changed = max(changed, abs(new - w))
        end
        moved > 4 * eps(T) * size || break
    end
    return changed
end

# Whether a kink that the flow points away from is held by others that it depends on. Its side may then be one that no
# point nearby has, and small steps would lead away.
function undecided(kinks::Kinks{T}, g) where {T}
    size = norm(g)
    return any(eachindex(kinks.judged)) do i
        n = kinks.normals[i]
        kinks.leader[i] == i && kinks.pull[i] < 0 && norm(n) > 0 && abs(dot(g, n)) <= T(1e-4) * norm(n) * size &&
            !kinks.rest[i]
    end
end

const TINY_STEPS = 200             # steps: sides are known to one in the half of them

"""
Sides that equal steps of the net itself from `y` have in the mean of their second half. They are far longer than
rounding and far shorter than what a normal changes over.
"""
function probe!(kinks::Kinks{T}, problem::FlowProblem{T}, y) where {T}
    mean, z, g = fill!(resize!(kinks.share, length(kinks.judged)), zero(T)), copyto!(kinks.y, y), kinks.g
    for p in 1:TINY_STEPS
        for _ in kinks.net.layers                  # a layer's sides must be known before the next one's can be
            forward_kinks!(kinks, parameters(problem, z))
            for c in kinks.judged
                side!(kinks, c, T(sides(kinks, c).h[c.row, c.unit] > 0))
            end
        end
        value_and_gradient_at!(g, problem, z)
        size = norm(g)
        size > 0 && add_scaled!(z, -cbrt(eps(T))^2 * max(norm(y), one(T)) / size, g)
        2p > TINY_STEPS || continue
        for (i, c) in enumerate(kinks.judged)
            mean[i] += side(kinks, c) / (TINY_STEPS ÷ 2)
        end
    end
    for (i, c) in enumerate(kinks.judged)
        side!(kinks, c, clamp(mean[i], zero(T), one(T)))
    end
    return nothing
end

# Of one sample in several layers the normals and pulls depend on the sides: then they are judged again.
const ROUNDS = 10

"Sides and weights after the step to `state.y`: what is at its kink crosses it, slides along it or leaves it."
function decide!(kinks::Kinks{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    value_and_gradient_at!(state.g, problem, state.y)
    gather!(kinks)
    slack = resize!(kinks.leeway, length(kinks.judged))
    fill!(slack, slack_after(T, 0))
    for c in kinks.met
        at = findfirst(==(c), kinks.judged)
        slack[at] = slack_after(T, doubt!(kinks, c))
    end
    for (i, c) in enumerate(kinks.active)
        at = findfirst(==(c), kinks.judged)
        slack[at] = c in kinks.met ? kinks.slack[i] : max(slack[at], kinks.slack[i])
    end
    layers = length(kinks.net.layers) > 2
    probing = true
    for _ in 1:(layers ? ROUNDS : 1)
        changed = judge!(kinks, problem, state.y, state.g, probing)
        probing &= isfinite(changed)
        changed > sqrt(eps(T)) || break
    end
    empty!(kinks.slack)
    for (i, c) in enumerate(kinks.judged)
        l = kinks.leader[i]
        w, s = side(kinks, kinks.judged[l]), slack[l]
        if w <= -s / 2 || w >= 1 + s / 2 || w == 0 || w == 1
            side!(kinks, c, follow(T(w > 0.5), kinks.ratio[i]))
        elseif l < i
            side!(kinks, c, follow(side(kinks, kinks.judged[l]), kinks.ratio[i]))
            push!(kinks.fellows,
                  Fellow{T}(c, kinks.judged[l], kinks.judged[l] in kinks.active ? kinks.ratio[i] : zero(T)))
        else
            side!(kinks, c, clamp(w, eps(T), 1 - eps(T)))
            m = length(kinks.active) + 1
            room!(kinks.basis, m, problem.n)
            if orthogonalise!(copyto!(kinks.basis[m], kinks.normals[i]), kinks, m) > 0
                push!(kinks.active, c)
                push!(kinks.slack, s)
            else
                push!(kinks.fellows, Fellow{T}(c, c, zero(T)))
            end
        end
    end
    kinks.known = false
    settle_weights!(kinks, problem, state)
    for c in kinks.met                           # what should have left and did not
        i = findfirst(==(c), kinks.active)
        i === nothing || (kinks.slack[i] = max(kinks.slack[i], slack_after(T, doubt!(kinks, c))))
    end
    return nothing
end

"A side for `c` and for its fellows."
function lead!(kinks::Kinks, c::Contact, w)
    side!(kinks, c, w)
    for f in kinks.fellows
        f.leader == c && f.ratio != 0 && side!(kinks, f.contact, follow(w, f.ratio))
    end
    return nothing
end

"Leave the kinks whose weights are out of range, worst first."
function settle_weights!(kinks::Kinks{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    while true
        weights!(kinks, problem, state.y, state.g)
        worst, at = zero(T), 0
        for (i, w) in enumerate(kinks.weight)
            out = -range_margin(w, kinks.slack[i] / 2)
            out > worst && ((worst, at) = (out, i))
        end
        if at == 0
            for (i, c) in enumerate(kinks.active)
                lead!(kinks, c, clamp(kinks.weight[i], eps(T), 1 - eps(T)))
            end
            break
        end
        c = kinks.active[at]
        lead!(kinks, c, isfinite(kinks.weight[at]) ? T(kinks.weight[at] > 0.5) : round(side(kinks, c)))
        filter!(f -> f.leader != c, kinks.fellows)
        deleteat!(kinks.active, at)
        deleteat!(kinks.slack, at)
        kinks.known = false
    end
    evaluate_point!(problem, state)
    return nothing
end
