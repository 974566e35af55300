# With x̃ = (x, 1) and w̃ = (w, b), a pair adds
#     2 (aᵢ·aⱼ) E[fᵢ'fⱼ' x̃x̃ᵀ] to (w̃ᵢ, w̃ⱼ),    2 (aᵢ·aⱼ) E[fᵢ''fⱼ x̃x̃ᵀ] to (w̃ᵢ, w̃ᵢ),
#     2 aᵢ E[fᵢ'fⱼ x̃]ᵀ to (aⱼ, w̃ᵢ),           2 aⱼ E[fᵢ'fⱼ x̃]ᵀ to (aᵢ, w̃ᵢ),     2 E[fᵢfⱼ] to (aᵢ, aⱼ).

"E[F x̃x̃ᵀ] = [m 1 + xx v₁v₁ᵀ + xy (v₁v₂ᵀ + v₂v₁ᵀ) + yy v₂v₂ᵀ, x v₁ + y v₂; ·, m]"
struct Second{S}
    m::S
    x::S
    y::S
    xx::S
    xy::S
    yy::S
end
second_11(m::Moments) = Second(m.m11, m.x11, m.y11, m.xx11, m.xy11, m.yy11)
second_20(m::Moments) = Second(m.m20, m.x20, m.y20, m.xx20, m.xy20, m.yy20)
second_02(m::Moments) = Second(m.m02, m.x02, m.y02, m.xx02, m.xy02, m.yy02)

"""
Add second derivatives to `target`, a Hessian or a [`Product`](@ref), by
`add_hidden!(target, layer, i, j, c, second, v1, v2)`, `add_mixed!(target, net, o, i, j, c, m, x, y, v1, v2)` (output
weight o of unit j with w̃ᵢ; j = 0 is the output bias) and `add_outer!(target, net, o, i, j, c)` (output weights o of i
and j).
"""
function add_second!(target::A, net::InfiniteNet) where {A}
    hidden, last_layer = net.student.layers[1], net.student.layers[2]
    a, d, units, ws = net.outputs, net.offset, net.units, net.pairs
    k, outputs = hidden.width, length(net.offset)
    offset = last_layer.bias || any(!iszero, d)
    for i in 1:k
        heartbeat(net.monitor)
        for j in 1:length(units)
            i < j <= k && continue
            m = expectations!(ws, units[i], units[j], 2)
            v1, v2, c = m.v1, m.v2, 2 * column_product(a, i, j)
            add_hidden!(target, hidden, i, i, c, second_20(m), v1, v2)
            j <= i && add_hidden!(target, hidden, i, j, c, second_11(m), v1, v2)
            j < i && add_hidden!(target, hidden, j, j, c, second_02(m), v1, v2)
            for o in 1:outputs
                add_mixed!(target, net, o, i, i, 2 * a[o, j], m.m10, m.x10, m.y10, v1, v2)
                j <= i && add_mixed!(target, net, o, i, j, 2 * a[o, i], m.m10, m.x10, m.y10, v1, v2)
                j <= i && add_outer!(target, net, o, i, j, 2 * m.m00)
                j < i || continue
                add_mixed!(target, net, o, j, j, 2 * a[o, i], m.m01, m.x01, m.y01, v1, v2)
                add_mixed!(target, net, o, j, i, 2 * a[o, j], m.m01, m.x01, m.y01, v1, v2)
            end
        end
        offset || continue
        e0, e1, e2, e3, e4 = single(units[i], ws.nodes)
        n, r = units[i].n, units[i].r
        add_hidden!(target, hidden, i, i, 2 * column_dot_vector(a, i, d),
                    Second(e2, e3, zero(e2), e4, zero(e2), zero(e2)), n, n)
        for o in 1:outputs
            add_mixed!(target, net, o, i, i, 2 * d[o], e1, r * e2, 0.0, n, n)
            last_layer.bias || continue
            add_mixed!(target, net, o, i, 0, 2 * a[o, i], e1, r * e2, 0.0, n, n)
            add_outer!(target, net, o, i, 0, 2 * e0)
        end
    end
    for o in 1:outputs
        last_layer.bias && add_outer!(target, net, o, 0, 0, 2.0)
    end
    return target
end

"Index of the output weight o of unit j, or of the output bias."
output_index(l::Layer, o, j) = j == 0 ? bias_offset(l) + o : l.offset + (o - 1) * l.fan_in + j

# ---- the Hessian: its lower triangle, in which every block (w̃ᵢ, w̃ⱼ) has i ≥ j -----------------------------------

function add_hidden!(H::Matrix, l::Layer, i, j, c, s::Second, v1, v2)
    D = l.fan_in
    I, J = (i - 1) * D, (j - 1) * D
    @inbounds for e in 1:D
        p, q = c * (s.xx * v1[e] + s.xy * v2[e]), c * (s.xy * v1[e] + s.yy * v2[e])
        @simd for d in 1:D
            H[I+d, J+e] += p * v1[d] + q * v2[d]
        end
        H[I+e, J+e] += c * s.m
    end
    if l.bias
        bi, bj = bias_offset(l) + i, bias_offset(l) + j
        @inbounds for d in 1:D
            t = c * (s.x * v1[d] + s.y * v2[d])
            H[bi, J+d] += t
            i == j || (H[bj, I+d] += t)
        end
        H[bi, bj] += c * s.m
    end
    return nothing
end

function add_mixed!(H::Matrix, net::InfiniteNet, o, i, j, c, m, x, y, v1, v2)
    l = net.student.layers[1]
    row, I = output_index(net.student.layers[2], o, j), (i - 1) * l.fan_in
    @inbounds for d in 1:l.fan_in
        H[row, I+d] += c * (x * v1[d] + y * v2[d])
    end
    l.bias && (H[row, bias_offset(l)+i] += c * m)
    return nothing
end

function add_outer!(H::Matrix, net::InfiniteNet, o, i, j, c)
    l = net.student.layers[2]
    a, b = output_index(l, o, i), output_index(l, o, j)
    H[max(a, b), min(a, b)] += c
    return nothing
end

function hessian!(H::Matrix{T}, net::InfiniteNet{T,S}, θ::Vector{T}) where {T,S}
    P = n_params(net)
    size(H) == (P, P) || throw(DimensionMismatch("H is $(size(H)), this net has $P parameters"))
    aim!(net, θ) || return fill!(H, NaN)
    if T === S
        add_second!(fill!(H, 0), net)
        scale_hessian!(H, net.factor)
    else
        size(net.H, 1) == P || (net.H = zeros(S, P, P))
        add_second!(fill!(net.H, 0), net)
        copyto!(H, scale_hessian!(net.H, net.factor))
    end
    add_penalty_hessian!(H, net.student.regulariser, θ)
    return mirror!(H)
end

function scale_hessian!(H, factor)
    @inbounds for j in axes(H, 2), i in j:size(H, 1)
        H[i, j] *= factor[i] * factor[j]
    end
    return H
end

"""
    hessian_blocks(net::InfiniteNet, θ) -> [H₁, H₂]

The diagonal blocks of the Hessian that belong to one layer each.
"""
function hessian_blocks(net::InfiniteNet, θ)
    H = hessian(net, θ)
    return [H[l.offset+1:l.offset+n_params(l), l.offset+1:l.offset+n_params(l)] for l in net.student.layers]
end

# ---- the product with a vector, never more than a few vectors at a time -------------------------------------

"Where ∇²L v is added up: y += ∇²L v."
struct Product
    y::Vector{Float64}
    v::Vector{Float64}
end

function add_hidden!(t::Product, l::Layer, i, j, c, s::Second, v1, v2)
    hidden_product!(t, l, i, j, c, s, v1, v2)
    i == j || hidden_product!(t, l, j, i, c, s, v1, v2)
    return nothing
end

function hidden_product!(t::Product, l::Layer, i, j, c, s::Second, v1, v2)
    D, y, v = l.fan_in, t.y, t.v
    I, J = (i - 1) * D, (j - 1) * D
    p = q = 0.0
    @inbounds @simd for d in 1:D
        p = muladd(v1[d], v[J+d], p)
        q = muladd(v2[d], v[J+d], q)
    end
    b = l.bias ? v[bias_offset(l)+j] : 0.0
    x, z = c * (s.xx * p + s.xy * q + s.x * b), c * (s.xy * p + s.yy * q + s.y * b)
    @inbounds @simd for d in 1:D
        y[I+d] += c * s.m * v[J+d] + x * v1[d] + z * v2[d]
    end
    l.bias && (y[bias_offset(l)+i] += c * (s.x * p + s.y * q + s.m * b))
    return nothing
end

function add_mixed!(t::Product, net::InfiniteNet, o, i, j, c, m, x, y, v1, v2)
    l = net.student.layers[1]
    row, I = output_index(net.student.layers[2], o, j), (i - 1) * l.fan_in
    p, q, s = c * x, c * y, 0.0
    @inbounds for d in 1:l.fan_in
        z = p * v1[d] + q * v2[d]
        s = muladd(z, t.v[I+d], s)
        t.y[I+d] += z * t.v[row]
    end
    if l.bias
        s += c * m * t.v[bias_offset(l)+i]
        t.y[bias_offset(l)+i] += c * m * t.v[row]
    end
    t.y[row] += s
    return nothing
end

function add_outer!(t::Product, net::InfiniteNet, o, i, j, c)
    l = net.student.layers[2]
    a, b = output_index(l, o, i), output_index(l, o, j)
    t.y[a] += c * t.v[b]
    a == b || (t.y[b] += c * t.v[a])
    return nothing
end

function hvp!(y::Vector{T}, net::InfiniteNet{T}, θ::Vector{T}, v::Vector{T}) where {T}
    check_params(net, y)
    check_params(net, v)
    aim!(net, θ) || return fill!(y, NaN)
    @inbounds for i in eachindex(v)
        net.v[i] = net.factor[i] * v[i]
    end
    add_second!(Product(fill!(net.g, 0), net.v), net)
    @inbounds for i in eachindex(y)
        y[i] = net.factor[i] * net.g[i]
    end
    return add_penalty_hvp!(y, net.student.regulariser, θ, v)
end
